"""The measured topics: seeded sensor readings, each sensor about once a second of event time, in four partitions."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from fluvial.records import Column, Spans
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import doubles, longs, repeated, spans_from_strings
from fluvial.schemas.declarations import Declaration
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.schemas.topics import ensure_topics, topic_specs
from fluvial.settings import KafkaSettings, Settings
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher

SEED = 1
CHUNK = 100_000
BEGIN_MS = 1_760_000_000_000
DISORDER_MS = 2_000
SITES = 50
METRICS = ("temperature", "humidity", "pressure", "power")
TIMEOUT_SECONDS = 30.0
AGAIN_SECONDS = 0.5


def catalog_of(topic: str, name: str) -> Catalog:
    """Return the declarations of the shipped ``sensor_minute``, but from ``topic`` and into a table of its own."""
    table = replace(SENSOR_MINUTE.table, name=name)
    return Catalog([Declaration((replace(SENSOR_MINUTE, source=topic, table=table),))])


def provision(settings: Settings, catalog: Catalog) -> None:
    """Create the topics of a catalog and of the worker group in the settings, and register the schemas."""
    ensure_topics(
        AdminClient(librdkafka_config(settings.kafka)), topic_specs(catalog, settings.kafka, settings.worker.group)
    )
    with Registry(settings.registry) as registry:
        for topic in catalog.topics:
            registry.register(topic.subject, dict(topic.schema))


def create_topic(kafka: KafkaSettings, name: str, partitions: int) -> None:
    """Create a topic with Kafka's own defaults."""
    admin = AdminClient(librdkafka_config(kafka))
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        future.result()


def delete_topics(kafka: KafkaSettings, prefix: str) -> None:
    """Delete every topic whose name begins with ``prefix``."""
    admin = AdminClient(librdkafka_config(kafka))
    names = [name for name in admin.list_topics(timeout=TIMEOUT_SECONDS).topics if name.startswith(prefix)]
    if names:
        for future in admin.delete_topics(names).values():
            future.result()


def records_in(kafka: KafkaSettings, topic: str) -> int:
    """Return how many records a topic holds (0 when it does not exist)."""
    admin = AdminClient(librdkafka_config(kafka))
    found = admin.list_topics(timeout=TIMEOUT_SECONDS).topics.get(topic)
    if found is None:
        return 0
    return sum(end_offsets(admin, topic, list(found.partitions)).values())


def end_offsets(admin: AdminClient, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """Return the end of each partition; a broker that was just started may have to be asked again."""
    latest = {TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            found = admin.list_offsets(latest, request_timeout=TIMEOUT_SECONDS)
            return {tp.partition: int(f.result().offset) for tp, f in found.items()}
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_SECONDS)


def readings(rng: np.random.Generator, first: int, n: int, sensors: int) -> dict[str, Column]:
    """Return readings number ``first`` … as columns, of random sensors."""
    who = rng.integers(0, sensors, n)
    number = np.arange(first, first + n)
    time = BEGIN_MS + number * 1000 // sensors + rng.integers(0, DISORDER_MS, n)
    return {
        "sensor_id": _names("sensor-%06d", sensors).take(who),
        "site": _names("site-%d", SITES).take(who % SITES),
        "metric": spans_from_strings(METRICS).take(who % len(METRICS)),
        "event_time": longs(time),
        "value": doubles(20 + 5 * rng.random(n)),
        "unit": repeated("C", n),
        "sequence": longs(number),
    }


async def fill(settings: Settings, catalog: Catalog, topic: str, events: int, sensors: int) -> None:
    """Publish ``events`` readings of ``sensors`` sensors to a topic that `provision` has made."""
    schema = catalog.schema_of(topic)
    with Registry(settings.registry) as registry:
        encoder = Encoder(schema, registry.schema_id(f"{topic}-value", schema))
    rng = np.random.default_rng(SEED)
    async with Publisher(settings.kafka) as publisher:
        for first in range(0, events, CHUNK):
            columns = readings(rng, first, min(CHUNK, events - first), sensors)
            values = await asyncio.to_thread(encoder.encode, columns)
            await publisher.publish(topic, _spans(columns["sensor_id"]), values)
        await publisher.flush()


@cache
def _names(pattern: str, n: int) -> Spans:
    return spans_from_strings([pattern % i for i in range(n)])


def _spans(column: Column) -> Spans:
    assert isinstance(column, Spans)
    return column
