"""``fluvial replay``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fluvial.services.replay import ReplaySummary
    from fluvial.services.replay_plan import ReplayPlan
    from fluvial.stream_apps.replay_rules import Lateness

# Everything was done but for what the sink has to do.
EXIT_NOT_IN_TABLE = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    pipeline: Annotated[str, typer.Argument(help="A pipeline, e.g. sensor_minute.")],
    start: Annotated[
        str | None, typer.Option("--from", help="First instant (event time): 2026-03-01T12:00:00Z, 2026-03-01, or -1h.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="First instant that is left out. [default: now]")] = None,
    lateness: Annotated[
        str, typer.Option(help="How late an event may be and count: unlimited, declared, or a duration like 1h.")
    ] = "unlimited",
    rate: Annotated[float, typer.Option(min=0, help="Read at most so many records per second; 0 is no limit.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Partitions worked on side by side.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and compare, write nothing.")] = False,
    into: Annotated[
        str, typer.Option(metavar="SUFFIX", help="Write a side table TABLE_SUFFIX instead, to compare and promote.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest replay that did not finish.")] = False,
    across_partitions: Annotated[
        bool, typer.Option("--across-partitions", help="Fold a key's events of all partitions together.")
    ] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Go on where retention has deleted records of the range.")
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Read `fluvial archive` files instead of the topic."),
    ] = None,
) -> None:
    """Make the rows of a time range anew from the log, late events included, and write those that differ.

    Live processing goes on beside it, untouched. The new rows have a higher generation, so they win; rows outside the range
    and windows that are still open are left alone. Exit code 3 says that the rows are in the result topic, but that no sink
    has written them to Cassandra.

    Example: fluvial replay sensor_minute --from 2026-03-01 --to 2026-03-02 --dry-run
    """
    import asyncio
    from datetime import UTC, datetime

    from fluvial.cli.console import progress
    from fluvial.cli.settings import settings_for
    from fluvial.instants import instant
    from fluvial.services.declared import load_catalog
    from fluvial.services.replay import ReplayRun
    from fluvial.services.replay_plan import ReplayRequest
    from fluvial.services.replay_records import ReplayError

    if start is None and not resume:
        raise ReplayError("a replay needs a range of time", hint=f"fluvial replay {pipeline} --from -1d --dry-run")
    if dry_run and resume:
        raise ReplayError("--dry-run and --resume exclude each other", hint="leave one of them out")
    settings = settings_for({})
    now = datetime.now(UTC)
    begin, until = (round(instant(text, now).timestamp() * 1000) for text in (start or "now", end or "now"))
    request = ReplayRequest(
        pipeline=pipeline, begin=begin, end=until, lateness=_lateness(lateness), rate=rate, workers=workers, into=into,
        across_partitions=across_partitions, incomplete=incomplete, archive=archive,
    )  # fmt: skip
    with progress() as report:
        run = ReplayRun(settings, load_catalog(settings.worker), request, report=report, tell=_show_plan)
        try:
            summary = asyncio.run(run.run(dry=dry_run, resume=resume))
        except KeyboardInterrupt:
            if not dry_run:
                typer.echo(f"Interrupted. `fluvial replay {pipeline} --resume` goes on.", err=True)
            raise
    _show(summary, dry_run)
    if summary.in_table is False:
        raise typer.Exit(EXIT_NOT_IN_TABLE)


def _lateness(text: str) -> "Lateness":
    from fluvial.instants import milliseconds

    return "declared" if text == "declared" else "unlimited" if text == "unlimited" else milliseconds(text)


def _show_plan(plan: "ReplayPlan") -> None:
    topic = plan.pipeline.source
    for note in plan.notes:
        typer.echo(f"{note[0].upper()}{note[1:]}.", err=True)
    width = max(len(f"{topic}[{p}]") for p in plan.stretches)
    for p, (first, end) in sorted(plan.stretches.items()):
        told = f"offsets {first:,} to {end - 1:,}" if end > first else "nothing"
        typer.echo(f"  {f'{topic}[{p}]':<{width}}  {told}", err=True)


def _show(summary: "ReplaySummary", dry: bool) -> None:
    s = summary
    name = s.plan.pipeline.name
    rate = s.records / s.read_seconds if s.read_seconds else 0
    verb = "would be" if dry else "are"
    typer.echo(f"{s.records:,} records of {s.plan.pipeline.source} read in {s.read_seconds:.1f} s ({rate:,.0f}/s).")
    typer.echo(f"  {s.counts.windows:>12,}  windows of {name} made" + _with_late(s.counts.late_events))
    aside = s.destination != s.plan.pipeline.result_topic
    typer.echo(f"  {s.tally.changed:>12,}  rows " + (f"differ from {name}'s" if aside else f"{verb} changed"))
    typer.echo(f"  {s.tally.added:>12,}  rows " + (f"are not in {name}" if aside else f"{verb} added"))
    typer.echo(f"  {s.tally.unchanged:>12,}  rows are " + (f"equal to {name}'s" if aside else "unchanged"))
    if s.tally.earlier:
        typer.echo(f"  {s.tally.earlier:>12,}  rows were written before the interruption")
    if s.tally.expired:
        typer.echo(f"  {s.tally.expired:>12,}  rows are past the table's retention: they are not brought back")
    if s.counts.open_windows:
        typer.echo(f"  {s.counts.open_windows:>12,}  windows are still open: live processing writes them")
    if s.bad_records:
        typer.echo(f"  {s.bad_records:>12,}  records cannot be used: they are in {s.plan.pipeline.source}.dead-letter")
    if s.kept:
        typer.echo(f"  {s.kept:>12,}  rows in the table are not made by this log and stay as they are, for example:")
        for key in s.kept_keys:
            typer.echo(f"                  {key}")
    if dry:
        typer.echo("Nothing was written.")
    elif s.in_table is False:
        typer.echo(
            f"Generation {s.generation} is in {s.destination}, but no sink is writing it to Cassandra: start `fluvial sink`."
        )
    elif s.in_table is None and not aside:
        typer.echo("The table has them all: nothing had to be written.")
    else:
        typer.echo(f"Generation {s.generation} is in {s.destination}.")


def _with_late(events: int) -> str:
    return f", {events:,} late {'event' if events == 1 else 'events'} included" if events else ""
