"""A range of a pipeline's rows made anew from one partition's log: what ``fluvial replay`` writes, as pure functions.

The rows depend on the log below an end, on the range and on the rule about late events, and on nothing else: not on how
the log was cut into batches, nor on what is in any table.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fluvial.records import I64, Column, Spans
from fluvial.schemas.declarations import Pipeline, Tumbling
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import Aggregation, StageBatch
from fluvial.stream_apps.interning import joined
from fluvial.stream_apps.replay_rules import (
    NEVER_LATE_MS,
    Lateness,
    Span,
    clock_of,
    event_times,
    key_columns_of,
    live_rule,
    take_events,
    take_rows,
    taken,
    times_of,
    with_lateness,
)
from fluvial.stream_apps.windows import Rows, concat_rows

# The source partition of rows that are made of all of them.
ALL_PARTITIONS = -1


@dataclass(frozen=True, slots=True)
class Counts:
    """What a replay found in its range: windows that are still open (they are not written), late events it took in."""

    windows: int = 0
    open_windows: int = 0
    late_events: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.windows + other.windows, self.open_windows + other.open_windows, self.late_events + other.late_events
        )


class Part(Protocol):
    """Takes the sorted batches of one partition in offset order, from where reading starts up to the end.

    Then, if `again` names offsets, these once more through `process_again`.
    """

    def process(self, batch: StageBatch) -> None: ...
    def again(self) -> tuple[int, int] | None: ...
    def process_again(self, batch: StageBatch) -> None: ...


class Made(Protocol):
    """What came of it: the rows of closed windows, the range's keys, and what was found."""

    def columns(self, generation: int) -> dict[str, Column]: ...
    def keys(self) -> Spans: ...
    @property
    def counts(self) -> Counts: ...


class Replay(Part, Made, Protocol):
    """Both: the replay of one partition."""


def new_replay(
    pipeline: Pipeline, partition: int, span: Span, lateness: Lateness, *, end: int, upstream_partitions: int = 0
) -> Replay:
    """Return the replay of one partition whose log is read below ``end``."""
    # Ranked items are numbered by each engine for itself.
    if isinstance(pipeline.window, Tumbling) and pipeline.top is None and lateness in ("declared", "unlimited"):
        return _TwoReadings(pipeline, partition, span, lateness, end, upstream_partitions)
    return _OneReading(pipeline, partition, span, lateness, end, upstream_partitions)


class _OneReading:
    """One engine under the asked rule for the values, one under the declared rule for what is closed.

    Keeps every window of the range until the end, when late events are unlimited.
    """

    def __init__(
        self, pipeline: Pipeline, partition: int, span: Span, lateness: Lateness, end: int, upstream_partitions: int
    ) -> None:
        self._span, self._end = span, end
        self._times = event_times(pipeline, span)
        self._all_count = lateness == "unlimited"
        self._event_time = pipeline.event_time
        self._values = Aggregation(
            with_lateness(pipeline, lateness), partition=partition, upstream_partitions=upstream_partitions
        )
        self._same = lateness == "declared"
        self._clock = (
            self._values
            if self._same
            else Aggregation(clock_of(pipeline), partition=partition, upstream_partitions=upstream_partitions)
        )
        self._kept: list[Rows] = []
        self._found: Rows | None = None
        self._open = self._late = 0

    def process(self, batch: StageBatch) -> None:
        if not self._same:
            self._late += self._inside(batch, self._clock.fold(batch)[1].record)
        if self._all_count:
            batch = take_events(batch, self._event_time, self._times)
        rows, late = self._values.fold(batch)
        if not self._same:
            self._late -= self._inside(batch, late.record)
        kept = np.flatnonzero((rows.ints[:, k.O_FINAL] == 1) & self._span.holds(rows.ints[:, k.O_START]))
        if len(kept):
            self._kept.append(take_rows(rows, kept))

    def again(self) -> tuple[int, int] | None:
        return None

    def process_again(self, batch: StageBatch) -> None:
        raise NotImplementedError

    def columns(self, generation: int) -> dict[str, Column]:
        self._values.generation = generation
        return self._values.columns(self._rows())

    def keys(self) -> Spans:
        ids = np.unique(self._all()[0].ints[:, k.O_KEY])
        return joined(self._values.key_columns(ids))

    @property
    def counts(self) -> Counts:
        return Counts(len(self._rows()), self._open, self._late)

    def _inside(self, batch: StageBatch, at: I64) -> int:
        """Return how many of the given events are of the range's times."""
        time, (begin, end) = times_of(batch, self._event_time)[at], self._times
        return int(((time >= begin) & (time < (end if end is not None else NEVER_LATE_MS))).sum())

    def _all(self) -> tuple[Rows, int]:
        still = self._values.still_open(self._end - 1)
        still = take_rows(still, np.flatnonzero(self._span.holds(still.ints[:, k.O_START])))
        return concat_rows([*self._kept, still], still.top_item.shape[1]), len(still)

    def _rows(self) -> Rows:
        if self._found is None:
            rows, still = self._all()
            final = np.ones(len(rows), np.bool_)
            if self._same:
                final[len(rows) - still :] = False
            else:
                ids = self._clock.key_ids(self._values.key_columns(rows.ints[:, k.O_KEY]))
                final = rows.ints[:, k.O_END] <= self._clock.closed_for(ids)
            self._open = int((~final).sum())
            self._found = take_rows(rows, np.flatnonzero(final))
            self._found.ints[:, k.O_FINAL] = 1
        return self._found


class _TwoReadings:
    """The declared rule first; then only the windows that it closed against late events are folded again, with those.

    So no more windows are in memory than a worker has, and the ones that missed nothing keep the offset that closed them.
    """

    def __init__(
        self, pipeline: Pipeline, partition: int, span: Span, lateness: Lateness, end: int, upstream_partitions: int
    ) -> None:
        assert isinstance(pipeline.window, Tumbling)
        self._pipeline, self._partition, self._span, self._end = pipeline, partition, span, end
        self._size = pipeline.window.size_ms
        self._mends = lateness == "unlimited"
        self._live = Aggregation(live_rule(pipeline), partition=partition, upstream_partitions=upstream_partitions)
        self._mended = Aggregation(
            with_lateness(pipeline, "unlimited"), partition=partition, upstream_partitions=upstream_partitions
        )
        self._kept: list[Rows] = []
        # Windows that missed something, as (key id, start), and the last offset of what they missed.
        self._missed: list[I64] = []
        self._last = -1
        self._late = 0
        # Per batch: first and next offset, least and greatest event time.
        self._index: list[tuple[int, int, int, int]] = []
        self._codes: I64 | None = None
        self._made: tuple[Rows, Rows, Rows] | None = None

    def process(self, batch: StageBatch) -> None:
        if not len(batch):
            return
        rows, late = self._live.fold(batch)
        kept = np.flatnonzero(self._span.holds(rows.ints[:, k.O_START]))
        if len(kept):
            self._kept.append(take_rows(rows, kept))
        times = times_of(batch, self._pipeline.event_time)
        if not self._mends:
            return
        is_event = batch.kind == k.EVENT
        if is_event.any():
            self._index.append(
                (
                    int(batch.offset[0]),
                    int(batch.offset[-1]) + 1,
                    int(times[is_event].min()),
                    int(times[is_event].max()),
                )
            )
        start = times[late.record] // self._size * self._size
        inside = np.flatnonzero(self._span.holds(start))
        if len(inside):
            at = late.record[inside]
            ids = self._live.key_ids(key_columns_of(batch, self._pipeline, at))
            self._missed.append(np.unique(np.stack([ids, start[inside]], axis=1), axis=0))
            self._last = max(self._last, int(batch.offset[at].max()))
            self._late += len(inside)

    def again(self) -> tuple[int, int] | None:
        if not self._missed:
            return None
        missed = np.unique(np.concatenate(self._missed), axis=0)
        self._missed = [missed]
        low, high = int(missed[:, 1].min()), int(missed[:, 1].max()) + self._size
        first = next(a for a, _, least, greatest in self._index if least < high and greatest >= low)
        return first, self._last + 1

    def process_again(self, batch: StageBatch) -> None:
        p, codes = self._pipeline, self._missed_codes()
        batch = take_events(batch, p.event_time, (self._span.begin, self._span.end))
        if not len(batch):
            return
        at = np.arange(len(batch))
        code = self._code(self._live.key_ids(key_columns_of(batch, p, at)), times_of(batch, p.event_time))
        place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        self._mended.fold(taken(batch, codes[place] == code))

    def columns(self, generation: int) -> dict[str, Column]:
        live, mended, _ = self._rows()
        self._live.generation = generation
        return self._live.columns(concat_rows([live, mended], 0))

    def keys(self) -> Spans:
        ids = np.concatenate([rows.ints[:, k.O_KEY] for rows in self._rows()])
        return joined(self._live.key_columns(np.unique(ids)))

    @property
    def counts(self) -> Counts:
        live, mended, still = self._rows()
        return Counts(len(live) + len(mended), len(still), self._late)

    def _rows(self) -> tuple[Rows, Rows, Rows]:
        """Return the windows that missed nothing, the mended ones (under the same key ids), and those still open."""
        if self._made is None:
            live = concat_rows(self._kept, 0)
            mended = self._mended.still_open(self._end - 1)
            if self._missed:
                codes = self._missed_codes()
                code = self._code(live.ints[:, k.O_KEY], live.ints[:, k.O_START])
                place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
                live = take_rows(live, np.flatnonzero(codes[place] != code))
                mended.ints[:, k.O_KEY] = self._live.key_ids(self._mended.key_columns(mended.ints[:, k.O_KEY]))
                mended.ints[:, k.O_FINAL] = 1
            still = self._live.still_open(self._end - 1)
            inside = np.flatnonzero(self._span.holds(still.ints[:, k.O_START]))
            self._made = live, mended, take_rows(still, inside)
        return self._made

    def _missed_codes(self) -> I64:
        if self._codes is None:
            missed = np.unique(np.concatenate(self._missed), axis=0)
            self._codes = np.unique(self._code(missed[:, 0], missed[:, 1]))
        return self._codes

    def _code(self, ids: I64, time: I64) -> I64:
        """Return one number per (key, window)."""
        windows = (self._span.end - self._span.begin) // self._size
        return ids * windows + (time - self._span.begin) // self._size
