"""``fluvial push``: events from the shell to a gateway."""

from pathlib import Path
from typing import Annotated

import typer

LINES_AT_ONCE = 500


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(push)


def push(
    topic: Annotated[str, typer.Argument(help="An event topic, e.g. iot.readings.")],
    key: Annotated[str, typer.Option(envvar="FLUVIAL_KEY", help="An API key; better in the environment.")],
    gateway: Annotated[
        list[str] | None, typer.Option(help="A gateway's URL; repeat for more. [default: gateway.http_url]")
    ] = None,
    buffer: Annotated[Path, typer.Option(help="Where events wait while the gateway is away.")] = Path(
        "fluvial-buffer.db"
    ),
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the last acknowledgement; 0: for ever.")
    ] = 0.0,
) -> None:
    """Send NDJSON from stdin, one event per line. What a line became is safe: on disk at once, in Kafka in the end.

    Run it again after any interruption: what had not arrived is sent first. Exit code 1: something was refused (kept, and
    listed on stderr) or still waits.

    Example: fluvial push iot.readings < readings.ndjson
    """
    import json
    import sys

    from fluvial.cli.settings import settings_for
    from fluvial.client import Client
    from fluvial.services.declared import load_catalog

    settings = settings_for({})
    urls = gateway or [settings.gateway.http_url]
    fields = {f["name"] for f in load_catalog(settings.worker).schema_of(topic)["fields"]}
    numbered = "sequence" if "sequence" in fields else None
    wrong = 0
    with Client(urls, key=key, topic=topic, buffer=buffer, sequence_field=numbered) as client:
        refused_before = len(client.rejected())
        events = []
        for number, line in enumerate(sys.stdin, 1):
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise ValueError("not an object")
                events.append(event)
            except ValueError as e:
                wrong += 1
                typer.echo(f"line {number}: not sent: {e}", err=True)
            if len(events) >= LINES_AT_ONCE:
                client.send(*events)
                events = []
        if events:
            client.send(*events)
        arrived = client.flush(wait or None)
        refused = client.rejected()[refused_before:]
        for waiting, reason in refused[:20]:
            typer.echo(f"refused: {reason}: {waiting.event[:200]}", err=True)
        typer.echo(
            f"{client.acknowledged:,} acknowledged, {len(refused):,} refused, {client.waiting:,} waiting", err=True
        )
        if not arrived and client.last_problem:
            typer.echo(f"The gateway does not take them: {client.last_problem}. Run push again later.", err=True)
    if wrong or refused or not arrived:
        raise typer.Exit(1)
