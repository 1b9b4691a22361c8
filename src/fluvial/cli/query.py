"""``fluvial query``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    import pyarrow as pa

    from fluvial.query import Query, QueryTable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(query)


def query(
    table: Annotated[str, typer.Argument(help="A table, e.g. sensor_minute. `fluvial query tables` lists them.")],
    key: Annotated[list[str] | None, typer.Argument(help="Its key, e.g. a sensor and a metric.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First instant: 2026-03-01T12:00:00Z, 2026-03-01, now, or -1h, -7d.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="First instant that is left out. [default: now]")] = None,
    latest: Annotated[
        int | None, typer.Option(min=1, help="Instead of --from: the newest N rows (before --to, if given).")
    ] = None,
    fmt: Annotated[
        Literal["table", "csv", "json", "parquet", "arrow"],
        typer.Option("--format", help="json is one object per line; parquet and arrow are binary."),
    ] = "table",
    plot: Annotated[bool, typer.Option("--plot", help="Draw mean, min and max (or the named column).")] = False,
    columns: Annotated[str | None, typer.Option(help="Only these columns, comma separated.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows; 0 is all.")] = 0,
    order: Annotated[Literal["newest", "oldest"], typer.Option(help="Which rows come first.")] = "newest",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the data to a file.")] = None,
) -> None:
    """Read results by key and time: one key, from one instant (included) to another (not included).

    Data go to stdout, everything else to stderr. Times are UTC unless they say otherwise.

    Example: fluvial query sensor_minute sensor-0001 temperature --from -1h --plot
    """
    import sys
    from datetime import UTC, datetime

    from fluvial.cassandra import connected
    from fluvial.cli.settings import settings_for
    from fluvial.query_reader import describe_table, describe_tables, read, read_latest

    _refuse_nonsense(table, key or [], start, latest, fmt, plot, output, sys.stdout.isatty())
    cassandra = settings_for({}).cassandra
    now = datetime.now(UTC)
    with connected(cassandra, "read") as session:
        if table == "tables":
            _list_tables(describe_tables(session, cassandra.keyspace))
            return
        shape = describe_table(session, cassandra.keyspace, table)
        asked = _planned(session, shape, key or [], (start, end), columns, order, limit, latest, now)
        found = read_latest(session, asked, latest) if latest else read(session, asked)
        if len(found) == 0:
            _say_nothing_found(session, asked, latest)
    named = [c.strip() for c in (columns or "").split(",") if c.strip()]
    _show(found, asked, fmt, plot, named, output)


def _refuse_nonsense(
    table: str,
    key: list[str],
    start: str | None,
    latest: int | None,
    fmt: str,
    plot: bool,
    output: Path | None,
    terminal: bool,
) -> None:
    from fluvial.query import QueryError
    from fluvial.tabular import BINARY

    if table == "tables":
        return
    if start is None and latest is None:
        example = " ".join(["fluvial query", table, *(key or ["KEY…"])])
        raise QueryError("a query needs a range of time", hint=f"{example} --from -1h, or --latest 20")
    if start is not None and latest is not None:
        raise QueryError("--from and --latest exclude each other", hint="give one of them")
    if fmt in BINARY and output is None and terminal:
        raise QueryError(f"{fmt} is binary", hint=f"name a file with --output, or pipe it: … --format {fmt} | …")
    if plot and fmt != "table" and output is None:
        raise QueryError("--plot and the data would both go to stdout", hint="write the data to a file with --output")


def _planned(
    session: "Any",
    shape: "QueryTable",
    key: list[str],
    bounds: tuple[str | None, str | None],
    columns: str | None,
    order: Literal["newest", "oldest"],
    limit: int,
    latest: int | None,
    now: "datetime",
) -> "Query":
    from datetime import timedelta

    from fluvial.instants import instant
    from fluvial.query import QueryError, TimeRange, plan
    from fluvial.query_reader import known_keys

    start, end = bounds
    # Early rows of the window that is open now begin before now; a device's clock may be somewhat ahead.
    until = instant(end, now) if end else now + timedelta(days=1 if latest else 0)
    since = instant(start, now) if start else until - timedelta(milliseconds=1)
    named = [c.strip() for c in (columns or "").split(",") if c.strip()]
    if len(key) != len(shape.key):
        try:
            return plan(shape, key, TimeRange(since, until))
        except QueryError as e:
            some = known_keys(session, shape)
            examples = "; keys that exist: " + ", ".join(" ".join(k) for k in some) if some else ""
            raise QueryError(e.message + examples, hint=e.hint) from None
    selected = list(dict.fromkeys([shape.time, *named])) if named else []
    return plan(shape, key, TimeRange(since, until), columns=selected, order=order, limit=limit)


def _show(found: "pa.Table", asked: "Query", fmt: str, plot: bool, columns: list[str], output: Path | None) -> None:
    import sys

    from fluvial.tabular import for_reading, write

    constant = [name for name, _ in asked.table.key]
    data = for_reading(found, constant) if fmt == "table" and not columns else found
    if output is not None:
        with output.open("wb") as file:
            write(data, fmt, file)  # type: ignore[arg-type]
        typer.echo(f"{len(found):,} rows written to {output}.", err=True)
    if plot and len(found):
        _plot(found, asked, columns)
    elif output is None and not plot and (len(found) or fmt != "table"):
        write(data, fmt, sys.stdout.buffer)  # type: ignore[arg-type]


def _plot(found: "pa.Table", asked: "Query", columns: list[str]) -> None:
    import shutil

    from rich.console import Console
    from rich.text import Text

    from fluvial.plot import BAND, DOT, draw, series_of

    size = shutil.get_terminal_size((100, 30))
    title = " ".join([asked.table.name, *map(str, asked.key)])
    lines = draw(
        series_of(found, asked.table.time, columns), width=size.columns, height=min(16, size.lines - 4), title=title
    )
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        text = Text(line)
        text.highlight_regex(f"{BAND}+", "cyan")
        text.highlight_regex(f"{DOT}", "bold yellow")
        console.print(text)


def _say_nothing_found(session: "Any", asked: "Query", latest: int | None) -> None:
    from fluvial.query import iso
    from fluvial.query_reader import known_keys

    key = " ".join(map(str, asked.key))
    span = f"before {iso(asked.range.end)}" if latest else f"from {iso(asked.range.begin)} to {iso(asked.range.end)}"
    typer.echo(f"No rows of {asked.table.name} for {key} {span}.", err=True)
    some = known_keys(session, asked.table)
    if some and tuple(map(str, asked.key)) not in some:
        typer.echo("Keys that exist: " + ", ".join(" ".join(k) for k in some), err=True)


def _list_tables(tables: "list[QueryTable]") -> None:
    width = max((len(t.name) for t in tables), default=0)
    for t in tables:
        typer.echo(f"{t.name:<{width}}  {' '.join(name.upper() for name, _ in t.key)}")
