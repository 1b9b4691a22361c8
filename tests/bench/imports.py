"""How many events a second `fluvial import` brings from a file into Kafka, every one acknowledged by all replicas.

One file of readings as a CSV and as a Parquet file, one process: reading, checking, encoding, publishing.
"""

import asyncio
import contextlib
import resource
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.producers.fields import fields_of
from fluvial.producers.files import open_source
from fluvial.producers.import_plan import ImportRequest, plan_import
from fluvial.producers.importing import Importer
from fluvial.producers.random_blocks import BLOCK_EVENTS
from fluvial.producers.rejections import RejectedFile
from fluvial.producers.sensors import Sensors
from fluvial.records import Column
from fluvial.schemas.avro import load_schema
from fluvial.schemas.columns import column_to_arrow
from fluvial.schemas.encoder import Encoder
from fluvial.settings import Settings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher

EVENTS = 1_500_000
WARM_UP_EVENTS = 50_000
PARTITIONS = 4
SENSORS = 1_000
SCHEMA_ID = 1
START_MS = 1_767_225_600_000
READING = "fluvial.iot.SensorReading"


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the bench's table; ``cpu_seconds`` are this process's, Kafka's not included."""

    name: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    note: str = ""


def measure_csv(settings: Settings) -> Measured:
    """Import a CSV file with ISO 8601 times."""
    return _measure("import-csv", settings, ".csv")


def measure_parquet(settings: Settings) -> Measured:
    """Import a Parquet file with timestamps."""
    return _measure("import-parquet", settings, ".parquet")


def write(path: Path, events: int) -> Path:
    """Write simulated readings as CSV or Parquet, as the suffix says."""
    stream = Sensors(1, SENSORS, START_MS)
    with contextlib.ExitStack() as stack:
        writer: pyarrow.csv.CSVWriter | pyarrow.parquet.ParquetWriter | None = None
        for first in range(0, events, BLOCK_EVENTS):
            table = _table(stream.block(first // BLOCK_EVENTS)).slice(0, events - first)
            if writer is None:
                kind = pyarrow.csv.CSVWriter if path.suffix == ".csv" else pyarrow.parquet.ParquetWriter
                writer = stack.enter_context(kind(str(path), table.schema))
            writer.write_table(table)
    return path


def _table(columns: Mapping[str, Column]) -> pa.Table:
    arrays = {name: column_to_arrow(c) for name, c in columns.items()}
    arrays["event_time"] = arrays["event_time"].cast(pa.timestamp("ms", "UTC"))
    return pa.table(arrays)


def _measure(name: str, settings: Settings, suffix: str) -> Measured:
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as directory:
        small = write(Path(directory) / f"small{suffix}", WARM_UP_EVENTS)
        whole = write(Path(directory) / f"readings{suffix}", EVENTS)
        asyncio.run(_import(settings, small))
        cpu, begun = time.process_time(), time.perf_counter()
        events = asyncio.run(_import(settings, whole))
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(name, events, seconds, cpu_seconds, peak, "acks=all, one process")


async def _import(settings: Settings, path: Path) -> int:
    topic = f"bench-import-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(librdkafka_config(settings.kafka))
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    try:
        schema = load_schema(READING)
        source = open_source(path)
        plan = plan_import(
            ImportRequest(), fields_of(schema), "sensor_id", frozenset({"sensor_id", "metric"}), [source]
        )
        async with Publisher(settings.kafka) as publisher:
            importer = Importer(publisher, topic, plan, Encoder(schema, SCHEMA_ID))
            rejected = RejectedFile(path.with_suffix(".rejected.ndjson"))
            summary = await importer.import_file(source, rejected, lambda _: None)
        assert not summary.rejected, summary.reasons
        return summary.events
    finally:
        admin.delete_topics([topic])[topic].result()
