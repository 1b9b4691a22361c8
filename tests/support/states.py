"""Stages whose state is as large as asked for, without a decoder or a topic."""

from collections.abc import Iterator

import numpy as np

from fluvial.records import EventColumns
from fluvial.schemas.columns import doubles, longs, repeated, spans_from_strings
from fluvial.schemas.dead_letters import DeadLetterLimit
from fluvial.stream_apps.aggregation import StageBatch
from fluvial.stream_apps.plan import plan_topics
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from fluvial.stream_apps.stage import PartitionStage

BEGIN_MS = 1_760_000_000_000
BATCH = 50_000


class _NoDecoder:
    def decode(self, records: object) -> EventColumns:
        raise NotImplementedError


def stage() -> PartitionStage:
    """Return an empty stage of the shipped ``sensor_minute``."""
    plan = plan_topics([SENSOR_MINUTE])[SENSOR_MINUTE.source]
    limit = DeadLetterLimit(ratio=0.5, run=10_000)
    return PartitionStage(plan, 0, _NoDecoder(), limit=limit, max_ahead_ms=300_000)


def readings(first: int, sensors: range, *, per_second: int) -> StageBatch:
    """Return one reading of each sensor, at offsets from ``first``; event time goes on with the offset."""
    n = len(sensors)
    offset = np.arange(first, first + n)
    names = spans_from_strings([f"sensor-{i:07d}" for i in sensors])
    columns = {
        "sensor_id": names,
        "metric": repeated("temperature", n),
        "event_time": longs(BEGIN_MS + offset * 1000 // per_second),
        "value": doubles(20 + 5 * np.random.default_rng(first).random(n)),
        "sequence": longs(offset),
    }
    return StageBatch(
        kind=np.zeros(n, np.uint8),
        offset=offset,
        tick=np.zeros(n, np.int64),
        record_key=names,
        upstream=np.full(n, -1, np.int64),
        events=EventColumns(columns, np.ones(n, np.bool_), ()),
    )


def fold(s: PartitionStage, batch: StageBatch) -> None:
    """Let a stage handle events that are decoded already."""
    for component, aggregation, _ in s.aggregations:
        aggregation.process(batch)
        component.next_offset = int(batch.offset[-1]) + 1
    s.records += len(batch)


def batches(windows: int, first: int = 0) -> Iterator[StageBatch]:
    """Yield events of so many sensors, at offsets from ``first``; all of them open a window at about the same time."""
    for a in range(0, windows, BATCH):
        yield readings(first + a, range(a, min(a + BATCH, windows)), per_second=windows)
