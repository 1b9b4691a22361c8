"""Stock Faust, as its manual shows it: ``measured_faust.py BROKERS TOPIC GROUP SCHEMA PARTITIONS worker``.

A windowed table in memory, one event at a time, fastavro.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import fastavro
import faust
from faust.serializers import codecs

SIZE_SECONDS = 60.0
EVERY = 500
FRAME = 5

brokers, topic_name, group, schema_file, partitions = sys.argv[1:6]
schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))


class Avro(codecs.Codec):  # type: ignore[misc]
    """Confluent-framed records of the one schema."""

    def _loads(self, s: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(s[FRAME:]), schema, None)


codecs.register("avro", Avro())
app = faust.App(
    group,
    broker=f"kafka://{brokers}",
    store="memory://",
    topic_partitions=int(partitions),
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    stream_buffer_maxsize=65536,
    consumer_max_fetch_size=8 << 20,
)
topic = app.topic(topic_name, value_serializer="avro", key_serializer="raw")
table = app.Table("minutes", default=lambda: [0, 0.0, 1e300, -1e300], partitions=int(partitions)).tumbling(SIZE_SECONDS)


@app.agent(topic)  # type: ignore[untyped-decorator]
async def readings(stream: Any) -> None:
    """Count, sum, least and greatest value per sensor and minute."""
    handled = 0
    async for reading in stream:
        count, total, least, greatest = table[reading["sensor_id"]].current()
        value = reading["value"]
        table[reading["sensor_id"]] = [count + 1, total + value, min(least, value), max(greatest, value)]
        handled += 1
        if handled % EVERY == 0:
            print("at", handled, file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "--loglevel", "warn"]
    app.main()
