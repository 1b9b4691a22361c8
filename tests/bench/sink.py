"""How many rows a second reach Cassandra: the sink's own path, and one `execute_concurrent` statement per row.

Both write the same sensor_minute rows (21 columns) into one table of a keyspace of their own. The sink's path begins
with Avro records as they are in the result topic, the per-row path with Python values.
"""

import asyncio
import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from cassandra.concurrent import execute_concurrent_with_args

from fluvial.cassandra import connected
from fluvial.records import Column, RecordColumns
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import doubles, longs, repeated, spans_from_strings
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.migrations import migrations_in, statements
from fluvial.schemas.sources import SchemaMap
from fluvial.settings import CassandraSettings
from fluvial.sinks.rows import buckets, result_stamps, row_batches
from fluvial.sinks.tables import plan_table
from fluvial.sinks.writer import CassandraWriter
from fluvial.stream_apps.shipped import DECLARATION, SENSOR_MINUTE

KEYSPACE = "fluvial_bench"
MINUTE_MS = 60_000
DAY_MS = 86_400_000
FETCHED = 30_000
DOUBLES = ("sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99")
SCHEMA_ID = 1


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


def minute_rows(first: int, n: int, keys: int) -> dict[str, Column]:
    """Return rows ``first`` … of ``keys`` sensors: key after key, minute after minute, since the start of yesterday."""
    i = np.arange(first, first + n)
    start = (int(time.time() * 1000) // DAY_MS - 1) * DAY_MS + (i // keys) * MINUTE_MS
    rng = np.random.default_rng(first)
    return {
        "sensor_id": spans_from_strings([f"sensor-{k:06d}" for k in (i % keys).tolist()]),
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


def fetched(rows: int, keys: int) -> list[RecordColumns]:
    """Return rows as fetched Avro records, `FETCHED` at a time."""
    schema = Catalog((DECLARATION,)).schema_of(SENSOR_MINUTE.result_topic)
    encoder = Encoder(schema, SCHEMA_ID)
    found = []
    for first in range(0, rows, FETCHED):
        n = min(FETCHED, rows - first)
        values = encoder.encode(minute_rows(first, n, keys))
        nothing = np.zeros(n, np.int64)
        offsets = np.arange(first, first + n)
        found.append(RecordColumns(SENSOR_MINUTE.result_topic, 0, offsets, nothing, values, values, nothing, first + n))
    return found


def measure_sink(
    settings: CassandraSettings, rows: int = 300_000, keys: int = 1_000, rows_per_batch: int = 100
) -> Measured:
    """Measure Avro records → columns → packed batches → Cassandra's acknowledgement."""
    records = fetched(rows, keys)
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

        await writer.write(await asyncio.to_thread(prepare, records[0]))  # compiles
        begun, cpu = time.perf_counter(), time.process_time()
        lanes = asyncio.Semaphore(3)

        async def one(r: RecordColumns) -> None:
            async with lanes:
                await writer.write(await asyncio.to_thread(prepare, r))

        await asyncio.gather(*(one(r) for r in records))
        print(writer.counts)
        return time.perf_counter() - begun, time.process_time() - cpu

    with empty_table(settings) as session:
        seconds, cpu_seconds = asyncio.run(run(session))
    return Measured("sink", rows, seconds, cpu_seconds, _peak_mb())


def measure_per_row(settings: CassandraSettings, rows: int = 20_000, keys: int = 1_000) -> Measured:
    """Measure the driver's own `execute_concurrent`, one bound statement per row, 100 at once."""
    columns = minute_rows(0, rows, keys)
    columns["day"] = buckets(columns["window_start"].values, "day")
    with empty_table(settings) as session:
        names = list(session.cluster.metadata.keyspaces[KEYSPACE].tables["sensor_minute"].columns)
        marks = ", ".join("?" for _ in names)
        prepared = session.prepare(
            f"INSERT INTO {KEYSPACE}.sensor_minute ({', '.join(names)}) VALUES ({marks}) USING TIMESTAMP ? AND TTL ?"
        )
        values = [_python(columns[name]) for name in names]
        stamps = result_stamps(columns, 90)
        values += [stamps.written.tolist(), [90 * 86_400] * rows]
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

    cassandra = load_settings().cassandra
    print(measure_sink(cassandra))
    print(measure_per_row(cassandra))
