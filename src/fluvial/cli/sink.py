"""``fluvial sink``: result topics to Cassandra."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sink)


def sink(
    pipelines: Annotated[str | None, typer.Option(help="Write only these pipelines' rows, comma separated.")] = None,
    raw_readings: Annotated[
        bool | None, typer.Option("--raw-readings/--no-raw-readings", help="Also write every reading.")
    ] = None,
    instance_id: Annotated[str | None, typer.Option(help="Static group membership: this sink's lasting name.")] = None,
    from_available: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on where rows were deleted unread: TOPIC:PARTITION, TOPIC:PARTITION@OFFSET or all; for this start."
        ),
    ] = None,
) -> None:
    """Write results to Cassandra: whole rows that converge, acknowledged to Kafka after Cassandra has them.

    While Cassandra is away the sink pauses, says so, and goes on by itself. Ctrl-C or SIGTERM finishes what is on its
    way and ends. Start more of them to share the partitions.

    Example: fluvial sink --pipelines sensor_minute,sensor_hour
    """
    import asyncio

    from fluvial.cli.settings import settings_for
    from fluvial.schemas.registry import Registry
    from fluvial.services.declared import load_catalog
    from fluvial.services.running import run_apps
    from fluvial.services.sinking import build_sink
    from fluvial.transport.available import FromAvailable

    settings = settings_for(
        {"worker.pipelines": pipelines, "sink.raw_readings": raw_readings, "sink.instance_id": instance_id}
    )
    catalog = load_catalog(settings.worker)
    chosen = FromAvailable(from_available or ())

    async def run() -> None:
        with Registry(settings.registry) as registry:
            built = build_sink(settings, catalog, registry, chosen)
            try:
                await run_apps([built.app])
            finally:
                built.close()

    asyncio.run(run())
