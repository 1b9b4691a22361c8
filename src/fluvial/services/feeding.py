"""Putting a feed together: source, topics, schemas, publisher, signals."""

import asyncio
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
from fluvial.schemas.avro import load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.registry import Registry
from fluvial.schemas.topics import ensure_topics, retention_ms, topic_spec
from fluvial.services.importing import EventTopic, event_topic
from fluvial.services.intakes import intake_of
from fluvial.services.stopping import asked_to_stop
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
    with asked_to_stop() as stop, Registry(settings.registry) as registry:
        await asyncio.to_thread(_provide, settings.kafka)
        posts, deletions = await asyncio.to_thread(_intakes, settings, catalog, registry)
        async with Publisher(settings.kafka) as publisher:
            feeder = Feeder(source, posts, deletions, publisher, Cursors(settings.kafka, publisher))
            await feeder.run(stop, report)
    return feeder


def _provide(kafka: KafkaSettings) -> None:
    """Create the feeds' own topics where they are missing: cursors, and deletions as long as events are kept."""
    cursors = topic_spec(CURSORS_TOPIC, kafka, {"cleanup.policy": "compact"})
    deletions = topic_spec(DELETIONS, kafka, {"retention.ms": str(retention_ms(kafka.retention_hours))})
    ensure_topics(AdminClient(librdkafka_config(kafka)), [replace(cursors, partitions=1), deletions])


def _intakes(settings: Settings, catalog: Catalog, registry: Registry) -> tuple[TopicIntake, TopicIntake]:
    """Return the checks of posts and of deletions; whoever is a pseudonym in the one is the same in the other."""
    pseudonyms = settings.gateway.pseudonyms
    schema = load_schema("fluvial.social.PostDeletion")
    gone = EventTopic(DELETIONS, schema, "author_id", "event_time", frozenset({"author_id", "post_id"}), declared=False)
    names = {f.name for f in fields_of(schema)}
    theirs = [p.replace(f"{POSTS}:", f"{DELETIONS}:") for p in pseudonyms.split(",") if p.rpartition(":")[2] in names]
    return (
        intake_of(settings, event_topic(catalog, POSTS), registry, pseudonyms),
        intake_of(settings, gone, registry, ",".join(theirs)),
    )
