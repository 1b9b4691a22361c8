"""``fluvial archive``: topics to Parquet files."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(archive)


def archive(
    topics: Annotated[list[str], typer.Argument(help="Topics to archive.")],
    to: Annotated[Path, typer.Option(file_okay=False, help="Directory of the archive; it is made.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is published, until Ctrl-C or SIGTERM.")
    ] = False,
    decoded: Annotated[
        bool, typer.Option("--decoded", help="Write events as typed columns instead, for analysis; not to be replayed.")
    ] = False,
    file_mb: Annotated[
        int, typer.Option(min=1, help="Finish a file with so many megabytes, before compression.")
    ] = 256,
    file_seconds: Annotated[
        float, typer.Option(min=1, help="Finish a file at the latest so long after its first record.")
    ] = 300.0,
    from_available: Annotated[
        list[str] | None,
        typer.Option(help="Leave a gap where records were deleted before they were archived: TOPIC:PARTITION, or all."),
    ] = None,
) -> None:
    """Copy the raw records of topics into Parquet files, which outlive Kafka's retention and can be replayed.

    A second run goes on exactly where the finished files of each partition end. Files appear whole, with a checksum in
    their names: topic=T/partition=N/FIRST-NEXT-CRC.parquet. Columns: offset, timestamp, timestamp_type, key, value, headers.

    Example: fluvial archive iot.readings social.posts --to /srv/archive
    """
    import asyncio
    import time

    from fluvial.cli.console import columns, progress
    from fluvial.cli.settings import settings_for
    from fluvial.schemas.registry import Registry
    from fluvial.services.archived_events import event_rows
    from fluvial.services.archiving import Archiver, Rolling
    from fluvial.services.declared import load_catalog
    from fluvial.services.stopping import asked_to_stop
    from fluvial.transport.available import FromAvailable

    settings = settings_for({})
    catalog = load_catalog(settings.worker) if decoded else None
    begun = time.monotonic()

    async def run() -> Archiver:
        with Registry(settings.registry) as registry, progress() as report, asked_to_stop() as stop:
            archiver = Archiver(
                settings.kafka,
                topics,
                to,
                rows={t: event_rows(catalog.schema_of(t), registry) for t in topics} if catalog else {},
                from_available=FromAvailable(from_available or ()),
                rolling=Rolling(file_mb << 20, file_seconds),
                report=report,
            )
            await archiver.run(stop, follow=follow)
            return archiver

    done = asyncio.run(run()).archived.values()
    seconds = max(time.monotonic() - begun, 1e-9)
    rows = [
        (d.topic, f"{d.records:,}", f"{d.files:,}", f"{d.bytes:,}", f"{d.records / seconds:,.0f}", f"{d.skipped:,}")
        for d in done
    ]
    typer.echo(columns(("TOPIC", "RECORDS", "FILES", "BYTES", "RECORDS/S", "LOST"), rows))
