"""``fluvial worker``: the processors."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    pipelines: Annotated[
        str | None, typer.Option(help="Run only these pipelines (and what feeds them), comma separated.")
    ] = None,
    generation: Annotated[
        int | None, typer.Option(help="Write rows of this generation: it wins over lower ones.")
    ] = None,
    instance_id: Annotated[
        str | None, typer.Option(help="Static group membership: this worker's lasting name.")
    ] = None,
    from_available: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on where events were deleted unread: TOPIC:PARTITION, TOPIC:PARTITION@OFFSET or all; for this start."
        ),
    ] = None,
) -> None:
    """Aggregate events in event time: source topics to result topics, exact through any restart.

    Ctrl-C or SIGTERM finishes what is on its way, writes a checkpoint and ends. Start more of them to share the partitions.

    Example: fluvial worker --pipelines sensor_minute,sensor_hour
    """
    import asyncio

    from fluvial.cli.settings import settings_for
    from fluvial.schemas.registry import Registry
    from fluvial.services.declared import load_catalog
    from fluvial.services.generation import check_generation
    from fluvial.services.processors import build_worker
    from fluvial.services.running import run_apps
    from fluvial.transport.available import FromAvailable

    settings = settings_for(
        {"worker.pipelines": pipelines, "worker.generation": generation, "worker.instance_id": instance_id}
    )
    catalog = load_catalog(settings.worker)
    check_generation(settings, catalog)
    chosen = FromAvailable(from_available or ())

    async def run() -> None:
        with Registry(settings.registry) as registry:
            await run_apps([build_worker(settings, catalog, registry, chosen).app])

    asyncio.run(run())
