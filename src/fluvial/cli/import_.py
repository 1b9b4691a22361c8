"""``fluvial import``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from fluvial.producers.building import Built
    from fluvial.producers.import_plan import ImportRequest
    from fluvial.producers.importing import FileProgress, FileSummary
    from fluvial.services.importing import EventTopic, ImportSummary

SHOWN_EVENTS = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_)


def import_(
    topic: Annotated[str, typer.Argument(help="Topic to publish into, e.g. iot.readings.")],
    files: Annotated[list[Path], typer.Argument(help="CSV, NDJSON (both also .gz) or Parquet files.")],
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Fill a field from a column; repeatable. NDJSON: a.b.0"),
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option("--constant", metavar="FIELD=VALUE", help="Fill a field with one value.")
    ] = None,
    melt: Annotated[
        list[str] | None,
        typer.Option(
            "--melt",
            metavar="A,B,C",
            help="One reading per measure column: metric is its name, value its cell. Also NAME=COLUMN, and 'a.b.*'.",
        ),
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", metavar="FIELD=A,B", help="Fill a text field with a hash of columns."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Zone of times that have none, e.g. Europe/Berlin or UTC.")
    ] = None,
    time_unit: Annotated[
        Literal["auto", "s", "ms", "us", "ns"], typer.Option(help="Unit of epoch numbers; auto tells it from the size.")
    ] = "auto",
    null: Annotated[
        list[str] | None, typer.Option(help="A text that means null in numbers and times, instead of NA, N/A, null.")
    ] = None,
    kind: Annotated[
        Literal["csv", "ndjson", "parquet"] | None, typer.Option("--format", help="When the suffix does not tell.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between the cells of a CSV file.")] = None,
    event: Annotated[str | None, typer.Option(help="What a topic holds that no pipeline reads.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Field of the record key. Default: the pipelines' first key field.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Then tick, so that every window with an imported event becomes final.")
    ] = False,
    rejected: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Where <file>.rejected.ndjson goes. Default: beside the file."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the first events, publish nothing.")] = False,
) -> None:
    """Publish the events of files.

    Fields that are not mentioned take the column of their name, or their default. A line that cannot become an event is
    kept in <file>.rejected.ndjson with the reason; the others are imported all the same. The exit code is 1 when
    nothing could be imported.

    Example: fluvial import iot.readings weather.csv.gz --map sensor_id=site --map event_time=date_time
    --melt ambient_temperature,wind_speed --complete
    """
    from fluvial.producers.files import open_source
    from fluvial.services.declared import load_catalog
    from fluvial.services.importing import completing_pipelines, event_topic, plan_for
    from fluvial.services.importing import dry_run as try_out
    from fluvial.settings import load_settings

    if delimiter is not None and len(delimiter.encode()) != 1:
        raise typer.BadParameter("one character", param_hint="--delimiter")
    settings = load_settings()
    catalog = load_catalog(settings.worker)
    into = event_topic(catalog, topic, event, key)
    completing = completing_pipelines(catalog, into) if complete else ()
    request = _request(maps or [], constants or [], hashes or [], melt or [], timezone, time_unit, null)
    sources = [open_source(f, kind, delimiter) for f in files]
    plan = plan_for(into, request, sources)
    if dry_run:
        _print_events(try_out(sources, plan), into)
        return
    import asyncio

    from fluvial.services.importing import import_files

    with _bar(files) as report:
        summary = asyncio.run(
            import_files(
                settings,
                catalog,
                into,
                plan,
                sources,
                completing=completing,
                rejected_directory=rejected,
                report=report,
            )
        )
    _print_summary(summary, topic)
    if not summary.events:
        raise typer.Exit(1)


def _request(
    maps: Sequence[str],
    constants: Sequence[str],
    hashes: Sequence[str],
    melt: Sequence[str],
    timezone: str | None,
    time_unit: Literal["auto", "s", "ms", "us", "ns"],
    null: Sequence[str] | None,
) -> "ImportRequest":
    from fluvial.producers.cells import DEFAULT_NULLS
    from fluvial.producers.import_plan import ImportRequest
    from fluvial.producers.times import TimeRules

    return ImportRequest(
        columns=_pairs("--map", maps),
        constants=_pairs("--constant", constants),
        hashes={f: tuple(columns.split(",")) for f, columns in _pairs("--hash", hashes).items()},
        melt=tuple(part.strip() for text in melt for part in text.split(",") if part.strip()),
        times=TimeRules(None if timezone is None else _zone(timezone), time_unit),
        nulls=DEFAULT_NULLS if null is None else tuple(null),
    )


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise typer.BadParameter(f"{text!r} is not FIELD=…", param_hint=option)
        if field in pairs:
            raise typer.BadParameter(f"field {field} is given twice", param_hint=option)
        pairs[field] = value
    return pairs


def _zone(name: str):  # type: ignore[no-untyped-def]
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        told = f"{name!r} is no time zone: use one like Europe/Berlin, or UTC"
        raise typer.BadParameter(told, param_hint="--timezone") from None


@contextmanager
def _bar(files: Sequence[Path]) -> Iterator[Callable[["FileProgress"], None]]:
    """Yield a function that shows how far the import is: one bar per file, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[events]:>12,} events {task.fields[rejected]:>6,} rejected"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {f: bars.add_task(f.name, start=False, total=f.stat().st_size, events=0, rejected=0) for f in files}

        def report(p: "FileProgress") -> None:
            bars.start_task(tasks[p.path])
            bars.update(tasks[p.path], completed=p.position, events=p.events, rejected=p.rejected)

        yield report


def _print_events(files: Sequence["Built"], into: "EventTopic") -> None:
    from fluvial.producers.showing import shown

    for built in files:
        for line in shown(built, into.schema, SHOWN_EVENTS):
            typer.echo(line)
        bad = len(built.rejected)
        typer.echo(f"The first {built.lines:,} lines become {len(built):,} events, {bad:,} are rejected.")
        for r in built.rejected[:SHOWN_EVENTS]:
            typer.echo(f"  line {r.line}: {r.reason}")


def _print_summary(summary: "ImportSummary", topic: str) -> None:
    for f in summary.files:
        typer.echo(f"{f.path}: {_told(f)}")
        for reason, count in f.reasons.most_common():
            typer.echo(f"  {count:,} × {reason}")
        if f.rejected:
            typer.echo(f"  kept in {f.rejected_path}")
    seconds = max(summary.seconds, 1e-9)
    ticks = f" and {summary.ticks:,} ticks" if summary.ticks else ""
    pace = f"{seconds:.1f} s, {summary.events / seconds:,.0f} events/s"
    typer.echo(f"{summary.events:,} events{ticks} acknowledged in {topic}, {pace}")


def _told(f: "FileSummary") -> str:
    told = [f"{f.lines:,} lines, {f.events:,} events"]
    if f.nulls:
        told.append(f"{f.nulls:,} null measures skipped")
    if f.empty:
        told.append(f"{f.empty:,} lines without a measure")
    told.append(f"{f.rejected:,} lines rejected")
    return ", ".join(told)
