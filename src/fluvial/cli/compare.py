"""``fluvial compare`` and ``fluvial promote``: side tables that `fluvial replay --into` made."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fluvial.services.side_rows import Comparison

EXIT_DIFFERENT = 1
EXIT_NOT_IN_TABLE = 3

Table = Annotated[str, typer.Argument(help="A pipeline, which is its table's name, e.g. sensor_minute.")]
Suffix = Annotated[str, typer.Argument(help="What the side table's name ends with, as in `fluvial replay --into`.")]
From = Annotated[str | None, typer.Option("--from", help="First window start. [default: that of the replay]")]
To = Annotated[str | None, typer.Option("--to", help="First one that is left out. [default: that of the replay]")]
Drop = Annotated[bool, typer.Option("--drop", help="Drop the side table afterwards.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    app.command()(promote)


def compare(
    table: Table,
    suffix: Suffix,
    start: From = None,
    end: To = None,
    limit: Annotated[int, typer.Option(min=0, help="Show so many of the rows that differ.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    drop: Drop = False,
) -> None:
    """Compare a table with a side table, row by row and bit by bit; exit code 0: equal, 1: different.

    Where a row comes from (generation, source_partition, source_offset) does not count, nor do rows that are not final yet.

    Example: fluvial compare sensor_minute fixed
    """
    from fluvial.cli.settings import settings_for
    from fluvial.services.side_rows import drop_side_table

    settings = settings_for({})
    found = _compared(table, suffix, start, end)
    if as_json:
        typer.echo(json.dumps(_as_json(found, limit)))
    else:
        _show(found, limit)
    if drop:
        drop_side_table(settings, table, suffix)
        typer.echo(f"Table {found.side} is dropped.", err=True)
    if not found.equal:
        raise typer.Exit(EXIT_DIFFERENT)


def promote(
    table: Table,
    suffix: Suffix,
    start: From = None,
    end: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    drop: Drop = False,
) -> None:
    """Publish a side table's rows to the result topic, those that differ, under a new generation: the sinks write them.

    Exit code 3 says that they are in the result topic, but that no sink has written them to Cassandra.

    Example: fluvial promote sensor_minute fixed --dry-run
    """
    import asyncio

    from fluvial.cli.console import progress
    from fluvial.cli.settings import settings_for
    from fluvial.services.declared import load_catalog
    from fluvial.services.side_rows import drop_side_table, promote_rows

    settings = settings_for({})
    found = _compared(table, suffix, start, end)
    _show(found, 0)
    rows = len(found.found.changed) + len(found.found.right)
    if not dry_run and rows:
        if not yes:
            typer.confirm(f"Publish {rows:,} rows of {found.side}?", abort=True, err=True)
        with progress() as report:
            done = asyncio.run(promote_rows(settings, load_catalog(settings.worker), found, report=report))
        typer.echo(f"{done.rows:,} rows are published under generation {done.generation}.")
        if not done.in_table:
            typer.echo("No sink is writing them to Cassandra: start `fluvial sink`.")
            raise typer.Exit(EXIT_NOT_IN_TABLE)
    elif not dry_run:
        typer.echo("Nothing to promote.")
    if drop and not dry_run:
        drop_side_table(settings, table, suffix)
        typer.echo(f"Table {found.side} is dropped.", err=True)


def _compared(table: str, suffix: str, start: str | None, end: str | None) -> "Comparison":
    from datetime import UTC, datetime

    from fluvial.cli.settings import settings_for
    from fluvial.instants import instant
    from fluvial.services.side_rows import compare_side_table

    now = datetime.now(UTC)
    begin, until = (None if text is None else round(instant(text, now).timestamp() * 1000) for text in (start, end))
    return compare_side_table(settings_for({}), table, suffix, begin, until)


def _show(found: "Comparison", limit: int) -> None:
    from fluvial.cli.console import columns
    from fluvial.services.replay_plan import as_iso

    f, name = found.found, found.table.name
    typer.echo(f"{name} and {found.side}, windows from {as_iso(found.span.begin)} to {as_iso(found.span.end)}:")
    for count, told in (
        (len(f.same), "rows are equal"),
        (len(f.changed), "rows differ"),
        (len(found.only_table), f"rows are only in {name}"),
        (len(f.right), f"rows are only in {found.side}"),
    ):
        typer.echo(f"  {count:>12,}  {told}")
    if found.not_final:
        typer.echo(
            f"  {found.not_final:>12,}  rows of {name} are not final yet: a replay leaves them to live processing"
        )
    changes = found.changes(limit)
    if changes:
        rows = [[*map(str, c.key), as_iso(c.window_start), c.column, _cell(c.table), _cell(c.side)] for c in changes]
        headers = [*(n.upper() for n, _ in found.table.key), "WINDOW_START", "COLUMN", name, found.side]
        typer.echo(columns(headers, rows))
        left = len(f.changed) - limit
        if left > 0:
            typer.echo(f"… and {left:,} more rows (--limit)")


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def _as_json(found: "Comparison", limit: int) -> dict[str, object]:
    from fluvial.services.replay_plan import as_iso

    f = found.found
    differing = [
        {
            "key": list(c.key), "window_start": as_iso(c.window_start), "column": c.column,
            "table": c.table, "side_table": c.side,
        }
        for c in found.changes(limit)
    ]  # fmt: skip
    return {
        "table": found.table.name, "side_table": found.side, "from": as_iso(found.span.begin), "to": as_iso(found.span.end),
        "equal": found.equal, "same": len(f.same), "changed": len(f.changed), "only_table": len(found.only_table),
        "only_side_table": len(f.right), "not_final": found.not_final, "differences": differing,
    }  # fmt: skip
