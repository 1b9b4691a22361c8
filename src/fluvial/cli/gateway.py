"""``fluvial gateway``."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gateway)


def gateway(
    http: Annotated[str | None, typer.Option(help="Where to serve HTTP, e.g. http://127.0.0.1:8070.")] = None,
    grpc: Annotated[str | None, typer.Option(help="Where to serve gRPC, e.g. 127.0.0.1:8071.")] = None,
    auth: Annotated[str | None, typer.Option(help="keys, or none (on a loopback address only).")] = None,
) -> None:
    """Take events by HTTP and gRPC; acknowledge them once Kafka has them at acks=all.

    Make a key first: `fluvial keys add`. Ctrl-C or SIGTERM stops accepting, answers what is there, and ends.

    Example: fluvial gateway --auth none
    """
    import asyncio

    from fluvial.cli.settings import settings_for
    from fluvial.services.declared import load_catalog
    from fluvial.services.gateway import run_gateway

    settings = settings_for({"gateway.http_url": http, "gateway.grpc_target": grpc, "gateway.auth": auth})
    asyncio.run(run_gateway(settings, load_catalog(settings.worker)))
