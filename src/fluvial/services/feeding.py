"""Putting a feed together: source, topics, schemas, publisher, signals."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from confluent_kafka.admin import AdminClient

from fluvial.errors import SettingsError
from fluvial.producers.feeds.cursors import CURSORS_TOPIC, Cursors
from fluvial.producers.feeds.feeding import Feeder
from fluvial.producers.feeds.sources import Jetstream, Lines, ServerSentEvents, Source
from fluvial.producers.fields import fields_of
from fluvial.producers.gateway.intake import TopicIntake
from fluvial.producers.gateway.privacy import privacy_of, pseudonym_key
from fluvial.schemas.avro import load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.schemas.topics import TopicSpec, ensure_topics
from fluvial.services.gateway import intakes
from fluvial.settings import KafkaSettings, Settings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher

POSTS, DELETIONS = "social.posts", "social.deletions"
URLS = {
    "bluesky": "wss://jetstream2.us-east.bsky.network/subscribe",
    "mastodon": "https://mastodon.social/api/v1/streaming/public",
    "wikimedia": "https://stream.wikimedia.org/v2/stream/recentchange",
}


def source_of(
    kind: str, *, name: str | None, url: str | None, token: str | None, path: Path | None, command: str | None
) -> Source:
    """Return the feed that was asked for.

    Raises:
        SettingsError: what it needs is missing.
    """
    source: Source
    if kind == "ndjson":
        if (path is None) == (command is None):
            raise SettingsError("an ndjson feed needs --file or --command", hint="give one of them")
        source = Lines(name or (path.name if path else "command"), path=path, command=command)
    elif kind == "bluesky":
        source = Jetstream(url or URLS[kind])
    elif kind in URLS:
        source = ServerSentEvents(kind, url or URLS[kind], token)
    else:
        raise SettingsError(f"no feed {kind}", hint=f"feeds are {', '.join(URLS)}, ndjson")
    if name is not None:
        source.label = name
    return source


async def run_feed(
    settings: Settings, catalog: Catalog, source: Source, report: Callable[[Counter[str]], None]
) -> Feeder:
    """Feed until SIGINT or SIGTERM, or until the source ends; return the feeder with its counts.

    Raises:
        FluvialError: Kafka or the registry are away, or did not acknowledge.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for s in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(s, stop.set)
    try:
        with Registry(settings.registry) as registry:
            await asyncio.to_thread(_provide, settings.kafka)
            posts = (await asyncio.to_thread(intakes, settings, catalog, registry))[POSTS]
            deletions = await asyncio.to_thread(_deletions, settings, registry)
            async with Publisher(settings.kafka) as publisher:
                feeder = Feeder(source, posts, deletions, publisher, Cursors(settings.kafka, publisher))
                await feeder.run(stop, report)
    finally:
        for s in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(s)
    return feeder


def _provide(kafka: KafkaSettings) -> None:
    """Create the feeds' own topics where they are missing: cursors, and deletions as long as events are kept."""
    insync = {"min.insync.replicas": str(kafka.min_insync_replicas)}
    cursors = TopicSpec(CURSORS_TOPIC, 1, kafka.replication_factor, {"cleanup.policy": "compact", **insync})
    kept = {"retention.ms": str(kafka.retention_hours * 3_600_000 if kafka.retention_hours >= 0 else -1)}
    deletions = replace(cursors, name=DELETIONS, partitions=kafka.partitions, config={**insync, **kept})
    ensure_topics(AdminClient(librdkafka_config(kafka)), [cursors, deletions])


def _deletions(settings: Settings, registry: Registry) -> TopicIntake:
    schema, ours = load_schema("fluvial.social.PostDeletion"), settings.gateway
    schema_id = registry.register(f"{DELETIONS}-value", schema)
    fields = fields_of(schema)
    # Whoever is a pseudonym in the posts is the same one here.
    pseudonyms = ours.pseudonyms.replace(f"{POSTS}:", f"{DELETIONS}:")
    key = pseudonym_key(ours.pseudonym_keys) if ours.pseudonyms else None
    known = ",".join(p for p in pseudonyms.split(",") if p.rpartition(":")[2] in {f.name for f in fields})
    return TopicIntake(
        DELETIONS,
        schema,
        key="author_id",
        event_time="event_time",
        not_empty=frozenset({"author_id", "post_id"}),
        encoder=Encoder(schema, schema_id),
        decoder=Decoder(schema, registry),
        max_ahead_ms=int(settings.worker.max_ahead_seconds * 1000),
        privacy=privacy_of(DELETIONS, fields, key, known, ""),
    )
