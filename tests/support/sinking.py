"""A sink on real servers: a keyspace of its own with the shipped tables, topics of its own, rows in Avro."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from confluent_kafka import Producer

from fluvial.cassandra import connect, connected
from fluvial.records import Column, RecordColumns, RowError
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import doubles, longs, repeated, spans_from_strings
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.migrations import migrations_in, statements
from fluvial.schemas.sources import SchemaMap
from fluvial.settings import CassandraSettings, KafkaSettings, SinkSettings
from fluvial.sinks.app import Sink, SinkTopic
from fluvial.sinks.targets import Target
from fluvial.stream_apps.shipped import DECLARATION
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import OutRecord
from support.servers import unique_keyspace
from support.transport import committed, ends, eventually, group_id, running

CATALOG = Catalog((DECLARATION,))
DOUBLES = ("sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99")
MINUTE_MS = 60_000
SCHEMA_ID = 1

# Sensor, window start, mean, generation, source offset.
Row = tuple[str, int, float, int, int]


@contextmanager
def shipped_tables(cassandra: CassandraSettings, replicas: int = 1) -> Iterator[CassandraSettings]:
    """Give settings of a fresh keyspace with the shipped tables, and drop it afterwards."""
    keyspace = unique_keyspace("sink")
    with connected(cassandra, "write") as session:
        session.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}",
            timeout=60,
        )
        session.set_keyspace(keyspace)
        for migration in migrations_in(DECLARATION.schema_dir, "tests"):
            for statement in statements(migration.text):
                session.execute(statement, timeout=60)
        try:
            yield cassandra.model_copy(update={"keyspace": keyspace})
        finally:
            session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


def minute_columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Return sensor_minute rows as columns; every double is the mean."""
    sensor, start, mean, generation, offset = zip(*rows, strict=True)
    n = len(rows)
    return {
        "sensor_id": spans_from_strings(list(sensor)),
        "metric": repeated("temperature", n),
        "window_start": longs(list(start)),
        "window_end": longs([t + MINUTE_MS for t in start]),
        "count": longs([o + 1 for o in offset]),
        **{name: doubles(list(mean)) for name in DOUBLES},
        "duplicates": longs([0] * n),
        "final": longs([o % 2 for o in offset]),
        "generation": longs(list(generation)),
        "source_partition": longs([0] * n),
        "source_offset": longs(list(offset)),
    }


def encoded(topic: str, columns: Mapping[str, Column]) -> list[bytes]:
    """Return columns as the Avro values of a declared topic."""
    values = Encoder(CATALOG.schema_of(topic), SCHEMA_ID).encode(columns)
    return [value for i in range(len(values)) if (value := values.bytes_at(i)) is not None]


def decoder(topic: str) -> Decoder:
    """Return a decoder of a declared topic that needs no registry."""
    return Decoder(CATALOG.schema_of(topic), SchemaMap({SCHEMA_ID: CATALOG.schema_of(topic)}))


def publish(kafka: KafkaSettings, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    """Publish values one by one, in order."""
    producer = Producer(librdkafka_config(kafka) | {"linger.ms": 5, "compression.type": "lz4"})
    for value in values:
        producer.produce(topic, value, b"key", partition=partition)
        producer.poll(0)
    assert producer.flush(30) == 0


class RunningSink:
    """A sink of one topic that runs, and how far it is."""

    def __init__(self, sink: Sink, kafka: KafkaSettings, group: str, topic: str, partitions: int) -> None:
        self.sink, self.kafka, self.group, self.topic, self.partitions = sink, kafka, group, topic, partitions

    @property
    def caught_up(self) -> bool:
        """Whether everything in the topic is committed."""
        return committed(self.kafka, self.group, self.topic, self.partitions) == ends(
            self.kafka, self.topic, self.partitions
        )

    async def catch_up(self, seconds: float = 40.0) -> None:
        """Wait until everything in the topic is committed."""
        await eventually(lambda: self.caught_up, seconds)


@asynccontextmanager
async def running_sink(
    kafka: KafkaSettings,
    cassandra: CassandraSettings,
    topic: str,
    declared: str,
    target: Target,
    *,
    partitions: int = 1,
    **options: Any,
) -> AsyncIterator[RunningSink]:
    """Run a sink of ``topic``, whose records are those of the declared topic, in a consumer group of its own."""
    group = options.pop("group", group_id())
    dead_letters = options.pop("dead_letters", set_aside)
    sink = Sink(
        kafka,
        SinkSettings(group=group, rows_per_batch=20),
        cassandra,
        connect(cassandra, "write"),
        [SinkTopic(topic, target, decoder(declared), dead_letters)],
        **options,
    )
    sink.app.conf.broker_session_timeout = 6.0
    sink.app.conf.broker_heartbeat_interval = 1.0
    sink.app.conf.broker_commit_interval = 0.2
    try:
        async with running(sink.app):
            yield RunningSink(sink, kafka, group, topic, partitions)
    finally:
        sink.close()


def set_aside(records: RecordColumns, errors: Sequence[RowError]) -> list[OutRecord]:
    """Return the untouched values with their errors' types as keys."""
    return [OutRecord(e.error_type.encode(), records.value.bytes_at(e.row)) for e in errors]
