"""``fluvial simulate sensors | posts``."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from fluvial.producers.simulation import Progress

REPORT_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    what: Annotated[Literal["sensors", "posts"], typer.Argument(help="Readings of sensors, or posts of authors.")],
    rate: Annotated[float | None, typer.Option(help="Events per second. Default: as fast as Kafka takes them.")] = None,
    keys: Annotated[int, typer.Option(min=1, help="How many sensors or authors.")] = 1_000,
    events: Annotated[int | None, typer.Option(min=0, help="Stop after so many events.")] = None,
    duration: Annotated[float | None, typer.Option(min=0, help="Stop after so many seconds of event time.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="First event time, ISO 8601 with a zone. Default: now; without --rate, so that the last one is now."
        ),
    ] = None,
    disorder: Annotated[float, typer.Option(min=0, help="Seconds that an event may be on its way.")] = 0.0,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share of events that are sent twice.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed, other events.")] = 1,
    topic: Annotated[str | None, typer.Option(help="Default: iot.readings or social.posts.")] = None,
) -> None:
    """Publish simulated events.

    With --start, the same seed gives the same events, byte for byte, whatever the rate. Without it, event times follow
    the clock at --rate. Ctrl-C stops; what was sent is acknowledged before the command ends.

    Example: fluvial simulate sensors --rate 5000 --keys 200 --disorder 10 --duplicates 0.01
    """
    import asyncio
    import sys
    import time

    from fluvial.producers.simulation_plan import SimulationRequest, plan_simulation
    from fluvial.services.declared import load_catalog
    from fluvial.services.simulating import simulate as run
    from fluvial.settings import load_settings

    request = SimulationRequest(
        what, seed, keys, rate, events, duration, None if start is None else _instant(start), disorder, duplicates
    )
    plan = plan_simulation(request, time.time_ns() // 1_000_000)
    settings = load_settings()
    catalog = load_catalog(settings.worker)
    report = _reporter()
    done = asyncio.run(run(settings, catalog, plan, topic=topic, report=report))
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    typer.echo(
        f"{done.events:,} events in {done.seconds:.1f} s, {done.events / max(done.seconds, 1e-9):,.0f} events/s,"
        f" {done.acknowledged:,} acknowledged"
    )


def _instant(text: str) -> int:
    from fluvial.producers.times import instant_ms

    found = instant_ms(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no instant: use e.g. 2026-01-01T00:00:00Z", param_hint="--start")
    return found


def _reporter() -> Callable[["Progress"], None]:
    """Return a function that shows progress on stderr: a line that changes on a terminal, else one each ten seconds."""
    import sys

    terminal = sys.stderr.isatty()
    every = REPORT_SECONDS if terminal else 10 * REPORT_SECONDS
    shown = {"seconds": 0.0, "events": 0}

    def report(p: "Progress") -> None:
        passed = p.seconds - shown["seconds"]
        if passed < every:
            return
        now = (p.events - shown["events"]) / passed
        text = f"{p.seconds:7.1f} s  {p.events:>13,} events  {now:>10,.0f} events/s  {p.acknowledged:>13,} acknowledged"
        sys.stderr.write(f"\r{text}" if terminal else f"{text}\n")
        sys.stderr.flush()
        shown.update(seconds=p.seconds, events=p.events)

    return report
