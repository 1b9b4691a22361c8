"""How many sensor readings a second one core decodes and encodes: ``python tests/bench/codec.py``.

Time is that of the measuring thread, the best of several runs, so that other work on the machine counts little.
"""

import time
from collections.abc import Callable

import numpy as np

from fluvial.records import Column, RecordColumns, Spans
from fluvial.schemas.avro import load_schema
from fluvial.schemas.columns import doubles, longs, repeated, spans_from_strings
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.sources import SchemaMap

ROWS = 200_000
SENSORS = 1_000
RUNS = 40


def readings(n: int) -> dict[str, Column]:
    """Return n readings of 1,000 sensors, every field set; 60 bytes each on the wire."""
    row = np.arange(n)
    ids = spans_from_strings([f"sensor-{i:06d}" for i in range(SENSORS)])
    return {
        "sensor_id": ids.take(row % SENSORS),
        "site": repeated("berlin", n),
        "metric": repeated("temperature", n),
        "event_time": longs(1_700_000_000_000 + row),
        "value": doubles(row * 0.1),
        "unit": repeated("°C", n),
        "sequence": longs(row),
    }


def records_of(values: Spans) -> RecordColumns:
    """Return values as the records of one partition."""
    n = len(values)
    zeros = np.zeros(n, np.int64)
    key = Spans(values.buffer, zeros, zeros - 1)
    return RecordColumns("iot.readings", 0, np.arange(n), zeros, key, values, zeros, n)


def best_seconds(work: Callable[[], object]) -> float:
    """Return the least CPU time of one run."""
    best = float("inf")
    for _ in range(RUNS):
        begun = time.thread_time()
        work()
        best = min(best, time.thread_time() - begun)
    return best


def main() -> None:
    """Measure and print."""
    schema = load_schema("fluvial.iot.SensorReading")
    columns = readings(ROWS)
    encoder, decoder = Encoder(schema, 1), Decoder(schema, SchemaMap({1: schema}))
    values = encoder.encode(columns)
    records = records_of(values)
    assert decoder.decode(records).ok.all()
    print(f"{len(values.buffer) / ROWS:.1f} bytes a record")
    for name, work in (("decode", lambda: decoder.decode(records)), ("encode", lambda: encoder.encode(columns))):
        print(f"{name}  {ROWS / best_seconds(work):>12,.0f} rows per CPU second")


if __name__ == "__main__":
    main()
