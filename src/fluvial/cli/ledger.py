"""``fluvial ledger``: where every record went."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from fluvial.services.ledger import LedgerLine

COLUMNS = ("records", "ticks", "aggregated", "duplicates", "late", "dead_lettered")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ledger)


def ledger(
    fmt: Annotated[
        Literal["table", "json"], typer.Option("--format", help="json is one object per pipeline and partition.")
    ] = "table",
    by_partition: Annotated[
        bool, typer.Option("--by-partition", help="A line per partition instead of their sums.")
    ] = False,
) -> None:
    """Show where every record went: records = ticks + aggregated + duplicates + late + dead-lettered.

    The numbers are those of the workers' newest checkpoints; BEHIND counts what is in the log after them, SKIPPED
    (shown where there is any) offsets that retention deleted before they were read, and that a person chose to go on
    without. The exit code is 1 when something does not add up.

    Example: fluvial ledger --by-partition
    """
    from fluvial.cli.settings import settings_for
    from fluvial.services.declared import load_catalog
    from fluvial.services.ledger import read_ledger

    settings = settings_for({})
    lines = read_ledger(settings, load_catalog(settings.worker))
    if fmt == "json":
        for line in lines:
            typer.echo(json.dumps(asdict(line) | {"adds_up": line.adds_up}))
    else:
        _table(lines, by_partition)
    if not all(line.adds_up for line in lines):
        raise typer.Exit(1)


def _table(lines: "list[LedgerLine]", by_partition: bool) -> None:
    rows: dict[str, list[int]] = {}
    wrong: set[str] = set()
    shown = (*COLUMNS, "skipped") if any(line.skipped for line in lines) else COLUMNS
    for line in lines:
        name = f"{line.pipeline}  {line.topic}" + (f"[{line.partition}]" if by_partition else "")
        row = rows.setdefault(name, [0] * (len(shown) + 1))
        for i, value in enumerate([*(getattr(line, c) for c in shown), line.end - line.covered]):
            row[i] += value
        if not line.adds_up:
            wrong.add(name)
    if not rows:
        typer.echo("No checkpoint yet: run `fluvial worker` or `fluvial run`.", err=True)
        return
    titles = [*(c.upper().replace("_", "-") for c in shown), "BEHIND", "ADDS UP"]
    width = max(len(n) for n in [*rows, "PIPELINE  TOPIC"])
    typer.echo(f"{'PIPELINE  TOPIC':<{width}}" + "".join(f"{t:>15}" for t in titles))
    for name, row in rows.items():
        verdict = "NO" if name in wrong else "yes"
        typer.echo(f"{name:<{width}}" + "".join(f"{v:>15,}" for v in row) + f"{verdict:>15}")
