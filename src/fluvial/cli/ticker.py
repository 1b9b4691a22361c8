"""``fluvial ticker``: the clock of live topics."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ticker)


def ticker(
    topics: Annotated[
        str | None, typer.Option(help="Topics to tick, comma separated. [default: all event topics of the pipelines]")
    ] = None,
) -> None:
    """Tell every partition of live topics the time, so that windows close where no events come.

    One ticker per cluster is enough, several do no harm; `fluvial run` has one built in. How often: worker.tick_seconds.

    Example: fluvial ticker --topics iot.readings
    """
    import asyncio

    from fluvial.cli.settings import settings_for
    from fluvial.services.declared import load_catalog
    from fluvial.services.ticking import run_ticker

    settings = settings_for({})
    named = {t.strip() for t in topics.split(",")} if topics else None
    asyncio.run(run_ticker(settings, load_catalog(settings.worker), named))
