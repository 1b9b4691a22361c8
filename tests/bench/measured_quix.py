"""Quix Streams, in an environment of its own: ``measured_quix.py BROKERS TOPIC GROUP SCHEMA STATE``.

A tumbling window in RocksDB, one event at a time, fastavro.
"""

import io
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import fastavro
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Min, Sum
from quixstreams.models.serializers import Deserializer

EVERY = 500
FRAME = 5
GRACE_MS = 5_000


class Avro(Deserializer):  # type: ignore[misc]
    """Confluent-framed records of one schema; says how many it has read."""

    def __init__(self, schema: Any) -> None:
        super().__init__()
        self._schema = schema
        self._read = 0

    def __call__(self, value: bytes, ctx: Any) -> Any:
        reading = fastavro.schemaless_reader(io.BytesIO(value[FRAME:]), self._schema)
        reading["event_time"] = int(reading["event_time"].timestamp() * 1000)
        if self._read % EVERY == 0:  # what was read before this one has been aggregated
            print("at", self._read, flush=True)
        self._read += 1
        return reading


def main(brokers: str, topic_name: str, group: str, schema: str, state: str) -> None:
    """Read the topic until killed."""
    app = Application(
        broker_address=brokers, consumer_group=group, auto_offset_reset="earliest", state_dir=state, loglevel="WARNING"
    )
    topic = app.topic(
        topic_name,
        value_deserializer=Avro(fastavro.parse_schema(json.loads(Path(schema).read_text()))),
        key_deserializer="bytes",
        timestamp_extractor=lambda value, headers, timestamp, kind: value["event_time"],
    )
    windows = app.dataframe(topic).tumbling_window(timedelta(seconds=60), grace_ms=GRACE_MS)
    windows.agg(count=Count(), sum=Sum("value"), min=Min("value"), max=Max("value")).final()
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
