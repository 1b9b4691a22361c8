"""``fluvial run``: worker, sink and ticker together."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that is in the topics is in Cassandra.")
    ] = False,
    pipelines: Annotated[
        str | None, typer.Option(help="Run only these pipelines (and what feeds them), comma separated.")
    ] = None,
    from_available: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on where records were deleted unread: TOPIC:PARTITION, TOPIC:PARTITION@OFFSET or all; for this start."
        ),
    ] = None,
) -> None:
    """Aggregate events and write the results to Cassandra, all in one process.

    It runs the processors, the sink and a ticker that lets idle partitions' windows close, until Ctrl-C or SIGTERM. With
    --until-caught-up there is no ticker: windows that the log does not close are written as early rows (final = false).

    Example: fluvial run --until-caught-up
    """
    import asyncio

    from fluvial.cli.console import progress
    from fluvial.cli.settings import settings_for
    from fluvial.services.declared import load_catalog
    from fluvial.services.generation import check_generation
    from fluvial.services.together import run_together, run_until_caught_up
    from fluvial.transport.available import FromAvailable

    settings = settings_for({"worker.pipelines": pipelines})
    catalog = load_catalog(settings.worker)
    check_generation(settings, catalog)
    if until_caught_up:
        with progress() as report:
            asyncio.run(run_until_caught_up(settings, catalog, report))
    else:
        asyncio.run(run_together(settings, catalog, FromAvailable(from_available or ())))
