"""``fluvial demo``: the main job on real servers, from an empty folder to results."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

FOLDER = Path(".fluvial") / "demo"
EVENTS = 600_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running, to look around.")] = False,
    events: Annotated[int, typer.Option(help="How many sensor readings to simulate.", min=1000)] = EVENTS,
) -> None:
    """Run the whole of fluvial on this machine: real servers, real and simulated events, results.

    It starts Kafka, a schema registry and Cassandra in `.fluvial/demo`, publishes 39,244 real Wikipedia edits and
    simulated readings of 200 sensors (out of order, some sent twice, some late), aggregates them, and shows the tables.
    Each step is a command that you can type yourself. The servers are stopped at the end.

    Example: fluvial demo --keep
    """
    from fluvial.cli.console import progress
    from fluvial.services.demo import wikipedia_edits

    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("FLUVIAL_") or k in ("FLUVIAL_CACHE_DIR", "FLUVIAL_JAVA")
    }
    environment |= {"FLUVIAL_CLUSTER_DIR": str(FOLDER), "FLUVIAL_LOG_LEVEL": "warning"}
    with progress() as report:
        edits = wikipedia_edits(FOLDER.parent / "demo-data", report)

    def step(title: str, *arguments: str) -> None:
        typer.secho(f"\n{title}", bold=True)
        typer.secho("$ fluvial " + shlex.join(arguments), fg="cyan")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-m", "fluvial", *arguments], env=environment, check=False)  # noqa: S603
        if done.returncode != 0:
            raise typer.Exit(done.returncode)

    try:
        step("Real servers on this machine", "up", "--fresh")
        step("Topics, schemas and tables", "init", "--quiet")
        step(
            "Real events: a day of edits in 51 Wikipedias (channel → network, user → author, page → hashtag)",
            "import", "social.posts", str(edits), "--format", "ndjson", "--map", "author_id=user",
            "--map", "network=channel", "--map", "hashtags=page", "--map", "text=comment", "--map", "event_time=time",
            "--hash", "post_id=time,user,page", "--complete",
        )  # fmt: skip
        step(
            "Simulated events: 200 sensors, up to 90 s out of order, 1 % sent twice",
            "simulate", "sensors", "--keys", "200", "--events", str(events), "--start", "2026-06-01T06:00:00Z",
            "--disorder", "90", "--duplicates", "0.01",
        )  # fmt: skip
        step("Aggregate in event time and write to Cassandra, until everything is there", "run", "--until-caught-up")
        step(
            "What English Wikipedia was busy with, by the hour",
            "query", "trending_hour", "#en.wikipedia", "--from", "2015-09-12T18:00Z", "--to", "2015-09-12T21:00Z",
            "--columns", "window_start,sum,top,top_counts,final",
        )  # fmt: skip
        step(
            "A sensor's minutes: exact rows, late and repeated readings accounted for",
            "query", "sensor_minute", "sensor-0007", "temperature", "--from", "2026-06-01T06:00Z", "--to", "2026-06-01T06:10Z",
            "--columns", "window_start,count,mean,min,max,p95,duplicates,final",
        )  # fmt: skip
        step(
            "The same as a curve",
            "query", "sensor_minute", "sensor-0007", "temperature", "--from", "2026-06-01T06:00Z",
            "--to", "2026-06-01T08:00Z", "--plot",
        )  # fmt: skip
        step("Where every record went", "ledger")
    finally:
        if not keep:
            typer.secho("\nStopping the servers", bold=True)
            subprocess.run([sys.executable, "-m", "fluvial", "down"], env=environment, check=False)
    if keep:
        typer.echo(
            f"\nStill running. Look around with FLUVIAL_CLUSTER_DIR={FOLDER}, e.g. fluvial status; stop with fluvial down."
        )
