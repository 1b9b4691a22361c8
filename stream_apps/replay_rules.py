"""What a replay reads and by which rule: its range of windows, its lateness, and cutting batches to them. Pure."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fluvial.records import I64, Longs, Mask, RecordColumns, Spans
from fluvial.schemas.declarations import Hopping, Pipeline, Session, Tumbling
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import StageBatch
from fluvial.stream_apps.validation import take_batch
from fluvial.stream_apps.windows import Rows

# No event is ever late against these; far from int64's edge when they are added to an instant.
NEVER_LATE_MS = 1 << 60
NEVER_IDLE_MS = 1 << 61

# How late an event may be and still count: what the pipeline declares, so many ms, or however late.
Lateness = Literal["declared", "unlimited"] | int


@dataclass(frozen=True, slots=True)
class Span:
    """Windows that start at or after ``begin`` and before ``end`` (epoch ms)."""

    begin: int
    end: int

    def holds(self, start: I64) -> Mask:
        """Return which windows belong to it, by their starts."""
        return (start >= self.begin) & (start < self.end)


def widened(pipeline: Pipeline, begin: int, end: int) -> Span:
    """Return the windows that overlap ``begin`` ≤ t < ``end``; of sessions, those that start there."""
    w = pipeline.window
    if isinstance(w, Session):
        return Span(begin, end)
    size, hop = _size_and_hop(w)
    return Span((begin - size) // hop * hop + hop, -(-end // hop) * hop)


def event_times(pipeline: Pipeline, span: Span) -> tuple[int, int | None]:
    """Return the half-open range of event times that the span's windows are made of; a session may go on for ever."""
    w = pipeline.window
    if isinstance(w, Session):
        return span.begin - w.gap_ms, None
    size, hop = _size_and_hop(w)
    return span.begin, span.end - hop + size


def live_rule(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline as it is declared, without early rows."""
    return replace(pipeline, early_ms=0)


def with_lateness(pipeline: Pipeline, lateness: Lateness) -> Pipeline:
    """Return the pipeline under another rule about late events, and idle only when that rule allows it."""
    if lateness == "declared":
        return live_rule(pipeline)
    if lateness == "unlimited":
        return replace(pipeline, early_ms=0, lateness_ms=NEVER_LATE_MS, idle_timeout_ms=NEVER_IDLE_MS)
    w = pipeline.window
    length = w.gap_ms if isinstance(w, Session) else w.size_ms
    idle = max(pipeline.idle_timeout_ms, length + lateness)
    return replace(pipeline, early_ms=0, lateness_ms=lateness, idle_timeout_ms=idle)


def clock_of(pipeline: Pipeline) -> Pipeline:
    """Return the declared pipeline with the cheapest value: only what it has closed is asked of it."""
    return replace(pipeline, early_ms=0, aggregates=("count",), value=None, distinct=None, top=None)


def take_rows(rows: Rows, at: I64) -> Rows:
    """Return the given rows, copied."""
    return Rows(*(getattr(rows, f)[at] for f in Rows.__slots__))


def take_events(batch: StageBatch, event_time: str, times: tuple[int, int | None]) -> StageBatch:
    """Return the events of a half-open range of event times (None: without an end); no ticks."""
    begin, end = times
    time = times_of(batch, event_time)
    wanted = (batch.kind == k.EVENT) & (time >= begin)
    if end is not None:
        wanted &= time < end
    return taken(batch, wanted)


def below(records: RecordColumns, end: int) -> RecordColumns:
    """Return the records before an offset."""
    if records.next_offset <= end:
        return records
    n = int(np.searchsorted(records.offset, end))
    return RecordColumns(
        records.topic, records.partition, records.offset[:n], records.timestamp[:n], records.key.take(np.arange(n)),
        records.value.take(np.arange(n)), records.header_start[:n], end,
    )  # fmt: skip


def taken(batch: StageBatch, wanted: Mask) -> StageBatch:
    return batch if wanted.all() else take_batch(batch, np.flatnonzero(wanted))


def times_of(batch: StageBatch, event_time: str) -> I64:
    column = batch.events.columns[event_time]
    assert isinstance(column, Longs)
    return column.values


def key_columns_of(batch: StageBatch, pipeline: Pipeline, at: I64) -> list[Spans]:
    columns = [batch.events.columns[f] for f in pipeline.key]
    assert all(isinstance(c, Spans) for c in columns)
    return [c.take(at) for c in columns if isinstance(c, Spans)]


def _size_and_hop(w: Tumbling | Hopping) -> tuple[int, int]:
    return w.size_ms, w.hop_ms if isinstance(w, Hopping) else w.size_ms
