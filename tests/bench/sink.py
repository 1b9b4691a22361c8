"""How many rows a second reach Cassandra: the sink's own path, and one `execute_concurrent` statement per row.

Both write the same sensor_minute rows (21 columns) into one table of a keyspace of their own. The sink's path begins
with Avro records as they are in the result topic, the per-row path with Python values.
"""

import asyncio
import contextlib
import multiprocessing
import resource
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from cassandra.concurrent import execute_concurrent_with_args
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.cassandra import connected
from fluvial.records import Column, RecordColumns, Spans
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import doubles, longs, repeated, spans_from_strings
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.migrations import migrations_in, statements
from fluvial.schemas.sources import SchemaMap
from fluvial.settings import CassandraSettings, KafkaSettings, SinkSettings
from fluvial.sinks.app import LANES, Sink, SinkTopic
from fluvial.sinks.rows import buckets, result_stamps, row_batches
from fluvial.sinks.tables import plan_table
from fluvial.sinks.targets import result_target
from fluvial.sinks.writer import CassandraWriter
from fluvial.stream_apps.shipped import DECLARATION, SENSOR_MINUTE
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher

KEYSPACE = "fluvial_bench"
MINUTE_MS = 60_000
DAY_MS = 86_400_000
# What a fetch of 8 MiB holds of such rows.
FETCHED = 60_000
DOUBLES = ("sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99")
SCHEMA_ID = 1
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the bench's table; ``cpu_seconds`` are this process's, Cassandra's not included."""

    name: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float

    def __str__(self) -> str:
        return (
            f"{self.name:<14} {self.rows / self.seconds:>10,.0f} rows/s   {self.rows / self.cpu_seconds:>10,.0f} "
            f"rows/CPU s   {self.peak_mb:,.0f} MB"
        )


@contextlib.contextmanager
def empty_table(settings: CassandraSettings) -> Iterator[Any]:
    """Yield a session of the bench's keyspace with empty tables."""
    with connected(settings, "write") as session:
        session.execute(
            f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = "
            "{'class': 'SimpleStrategy', 'replication_factor': 1}",
            timeout=60,
        )
        session.set_keyspace(KEYSPACE)
        for migration in migrations_in(DECLARATION.schema_dir, "bench"):
            for statement in statements(migration.text):
                session.execute(statement, timeout=60)
        session.execute("TRUNCATE sensor_minute", timeout=60)
        session.cluster.refresh_schema_metadata()
        yield session


def minute_rows(first: int, n: int, keys: int, partition: int = 0, partitions: int = 1) -> dict[str, Column]:
    """Return rows ``first`` … of a partition's share of the sensors: minute after minute, since yesterday began."""
    i = np.arange(first, first + n)
    share = keys // partitions
    start = (int(time.time() * 1000) // DAY_MS - 1) * DAY_MS + (i // share) * MINUTE_MS
    rng = np.random.default_rng(first)
    return {
        "sensor_id": spans_from_strings([f"sensor-{k:06d}" for k in (partition + partitions * (i % share)).tolist()]),
        "metric": repeated("temperature", n),
        "window_start": longs(start),
        "window_end": longs(start + MINUTE_MS),
        "count": longs(np.full(n, 60)),
        **{name: doubles(rng.normal(20, 5, n)) for name in DOUBLES},
        "duplicates": longs(np.zeros(n)),
        "final": longs(np.ones(n)),
        "generation": longs(np.zeros(n)),
        "source_partition": longs(np.full(n, 2)),
        "source_offset": longs(i * 60),
    }


def fetched(rows: int, keys: int, begin: int = 0) -> list[RecordColumns]:
    """Return rows as fetched Avro records, `FETCHED` of one partition at a time, from row ``begin`` of each."""
    schema = Catalog((DECLARATION,)).schema_of(SENSOR_MINUTE.result_topic)
    encoder = Encoder(schema, SCHEMA_ID)
    found = []
    share = rows // PARTITIONS
    for first in range(begin, begin + share, FETCHED):
        for partition in range(PARTITIONS):
            n = min(FETCHED, begin + share - first)
            values = encoder.encode(minute_rows(first, n, keys, partition, PARTITIONS))
            nothing = np.zeros(n, np.int64)
            offsets = np.arange(first, first + n)
            topic = SENSOR_MINUTE.result_topic
            found.append(RecordColumns(topic, partition, offsets, nothing, values, values, nothing, first + n))
    return found


def measure_sink(
    settings: CassandraSettings, rows: int = 480_000, keys: int = 1_000, rows_per_batch: int = 100
) -> Measured:
    """Measure the sink without Kafka: Avro records → columns → packed batches → Cassandra's acknowledgement.

    Half as many other rows are written before, and not counted: a JVM that has just started compiles for a while.
    """
    records, before = fetched(rows, keys), fetched(rows // 2, keys, begin=rows // PARTITIONS)
    decoder = Decoder(
        Catalog((DECLARATION,)).schema_of(SENSOR_MINUTE.result_topic),
        SchemaMap({SCHEMA_ID: Catalog((DECLARATION,)).schema_of(SENSOR_MINUTE.result_topic)}),
    )

    async def run(session: Any) -> tuple[float, float]:
        plan = plan_table(session, KEYSPACE, SENSOR_MINUTE.table)
        writer = CassandraWriter(session)

        def prepare(r: RecordColumns) -> Any:
            events = decoder.decode(r)
            columns = dict(events.columns)
            columns["day"] = buckets(columns["window_start"].values, "day")
            stamps = result_stamps(columns, SENSOR_MINUTE.table.retention_days)
            return row_batches(
                plan,
                columns,
                np.flatnonzero(events.ok),
                stamps,
                now_ms=int(time.time() * 1000),
                rows_per_batch=rows_per_batch,
            )

        lanes = asyncio.Semaphore(LANES)

        async def one(r: RecordColumns) -> None:
            async with lanes:
                await writer.write(await asyncio.to_thread(prepare, r))

        await asyncio.gather(*(one(r) for r in before))
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one(r) for r in records))
        return time.perf_counter() - begun, time.process_time() - cpu

    with empty_table(settings) as session:
        seconds, cpu_seconds = asyncio.run(run(session))
    return Measured("sink", rows, seconds, cpu_seconds, _peak_mb())


def publish_rows(kafka: KafkaSettings, topic: str, rows: int, keys: int) -> None:
    """Publish rows by sensor; in a process of its own, so that its memory is not the sink's."""
    encoder = Encoder(Catalog((DECLARATION,)).schema_of(SENSOR_MINUTE.result_topic), SCHEMA_ID)

    async def publish() -> None:
        async with Publisher(kafka) as publisher:
            for first in range(0, rows, FETCHED):
                columns = minute_rows(first, min(FETCHED, rows - first), keys)
                names = columns["sensor_id"]
                assert isinstance(names, Spans)
                await publisher.publish(topic, names, encoder.encode(columns))
            await publisher.flush()

    asyncio.run(publish())


def measure_sink_app(
    kafka: KafkaSettings, settings: CassandraSettings, rows: int = 300_000, keys: int = 1_000
) -> Measured:
    """Measure the sink's Faust app from the first fetched record to the last acknowledged row."""
    topic = f"fluvial-bench-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(librdkafka_config(kafka))
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    schema = Catalog((DECLARATION,)).schema_of(SENSOR_MINUTE.result_topic)
    decoder = Decoder(schema, SchemaMap({SCHEMA_ID: schema}))

    async def run(session: Any) -> tuple[float, float]:
        target = result_target(SENSOR_MINUTE.table)
        place = settings.model_copy(update={"keyspace": KEYSPACE})
        sink = Sink(
            kafka,
            SinkSettings(group=topic),
            place,
            session,
            [SinkTopic(topic, target, decoder, lambda _records, _errors: ())],
        )
        running = asyncio.create_task(sink.app.run())
        while sink.counts.read == 0:  # noqa: ASYNC110 — counters have no event
            await asyncio.sleep(0.005)
        begun, cpu = time.perf_counter(), time.process_time()
        counts = sink.writer.counts
        while counts.rows + counts.superseded < rows and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        took = time.perf_counter() - begun, time.process_time() - cpu
        await sink.app.stop()
        await running
        return took

    publishing = multiprocessing.get_context("spawn").Process(target=publish_rows, args=(kafka, topic, rows, keys))
    publishing.start()
    publishing.join()
    try:
        with empty_table(settings) as session:
            seconds, cpu_seconds = asyncio.run(run(session))
    finally:
        admin.delete_topics([topic])[topic].result(30)
    return Measured("sink", rows, seconds, cpu_seconds, _peak_mb())


def measure_per_row(settings: CassandraSettings, rows: int = 20_000, keys: int = 1_000) -> Measured:
    """Measure the driver's own `execute_concurrent`, one bound statement per row, 100 at once."""
    columns = minute_rows(0, rows, keys)
    columns["day"] = buckets(columns["window_start"].values, "day")
    with empty_table(settings) as session:
        names = list(session.cluster.metadata.keyspaces[KEYSPACE].tables["sensor_minute"].columns)
        marks = ", ".join("?" for _ in names)
        prepared = session.prepare(
            f"INSERT INTO {KEYSPACE}.sensor_minute ({', '.join(names)}) VALUES ({marks}) USING TIMESTAMP ?"
        )
        values = [_python(columns[name]) for name in names]
        values.append(result_stamps(columns, 0).written.tolist())
        begun, cpu = time.perf_counter(), time.process_time()
        execute_concurrent_with_args(session, prepared, zip(*values, strict=True), concurrency=100)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    return Measured("sink-per-row", rows, seconds, cpu_seconds, _peak_mb())


def _python(column: Any) -> list[Any]:
    if hasattr(column, "values"):
        return column.values.tolist()
    return [column.bytes_at(i).decode() for i in range(len(column))]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    from fluvial.settings import load_settings

    found = load_settings()
    print(measure_sink_app(found.kafka, found.cassandra))
    print(measure_sink(found.cassandra))
    print(measure_per_row(found.cassandra))
