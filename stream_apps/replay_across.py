"""A replay whose keys may live in several partitions of the log: one state for all of them, in (partition, offset) order.

That is how a topic is read whose partitions were added, or whose producers disagree about where a key belongs: its live
rows are of one partition each, the last writer's.
"""

from collections.abc import Mapping

import numpy as np

from fluvial.records import I64, Column, Spans
from fluvial.schemas.declarations import Pipeline
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import Aggregation, StageBatch
from fluvial.stream_apps.interning import joined
from fluvial.stream_apps.replay_rules import (
    NEVER_LATE_MS,
    Span,
    clock_of,
    event_times,
    take_events,
    take_rows,
    times_of,
    with_lateness,
)
from fluvial.stream_apps.replaying import ALL_PARTITIONS, Counts
from fluvial.stream_apps.windows import Rows


class AcrossPartitions:
    """Every event of the range in one engine, and one clock per partition for what is closed.

    A key's windows are closed by the partition that has its greatest time, which is where its events go now; where the
    partition's time closes windows, by all that know the key. Its rows have source partition −1, and the offset before
    the greatest end.
    """

    def __init__(
        self, pipeline: Pipeline, span: Span, ends: Mapping[int, int], *, upstream_partitions: int = 0
    ) -> None:
        self._pipeline, self._span = pipeline, span
        self._last = max(ends.values(), default=0) - 1
        self._times = event_times(pipeline, span)
        self._values = Aggregation(
            with_lateness(pipeline, "unlimited"), partition=ALL_PARTITIONS, upstream_partitions=upstream_partitions
        )
        self._clocks = {
            p: Aggregation(clock_of(pipeline), partition=p, upstream_partitions=upstream_partitions) for p in ends
        }
        self._late = 0
        self._found: tuple[Rows, Rows] | None = None

    def partition(self, number: int) -> "OnePartition":
        """Return where a partition's batches go; whole partitions are fed in ascending order."""
        return OnePartition(self, number)

    def process(self, partition: int, batch: StageBatch) -> None:
        """Fold the next records of a partition."""
        late = self._clocks[partition].fold(batch)[1].record
        time, (begin, end) = times_of(batch, self._pipeline.event_time)[late], self._times
        self._late += int(((time >= begin) & (time < (NEVER_LATE_MS if end is None else end))).sum())
        self._values.fold(take_events(batch, self._pipeline.event_time, self._times))

    def columns(self, generation: int) -> dict[str, Column]:
        """Return the rows of the closed windows."""
        self._values.generation = generation
        return self._values.columns(self._rows()[0])

    def keys(self) -> Spans:
        """Return the range's keys."""
        ids = np.unique(np.concatenate([rows.ints[:, k.O_KEY] for rows in self._rows()]))
        return joined(self._values.key_columns(ids))

    @property
    def counts(self) -> Counts:
        """Windows written, windows that are still open, late events taken in."""
        closed, still = self._rows()
        return Counts(len(closed), len(still), self._late)

    def _rows(self) -> tuple[Rows, Rows]:
        if self._found is None:
            rows = self._values.still_open(self._last)
            rows = take_rows(rows, np.flatnonzero(self._span.holds(rows.ints[:, k.O_START])))
            closed = rows.ints[:, k.O_END] <= self._closed_for(rows.ints[:, k.O_KEY])
            rows.ints[:, k.O_FINAL] = 1
            self._found = take_rows(rows, np.flatnonzero(closed)), take_rows(rows, np.flatnonzero(~closed))
        return self._found

    def _closed_for(self, ids: I64) -> I64:
        columns = self._values.key_columns(ids)
        by_key = self._pipeline.time == "key"
        newest = np.full(len(ids), k.NEG, np.int64)
        closed = np.full(len(ids), k.NEG if by_key else -k.NEG, np.int64)
        for clock in self._clocks.values():
            theirs = clock.key_ids(columns)
            ki = clock.windows.ki
            at = np.minimum(theirs, len(ki) - 1)
            known = (theirs < len(ki)) & (ki[at, k.K_SIBLING] != k.UNKNOWN)
            through = clock.closed_for(theirs)
            if by_key:
                time = np.where(known, ki[at, k.K_TIME], k.NEG)
                better = known & ((time > newest) | ((time == newest) & (through > closed)))
                newest, closed = np.where(better, time, newest), np.where(better, through, closed)
            else:
                closed = np.where(known, np.minimum(closed, through), closed)
        return closed


class OnePartition:
    """The way into an `AcrossPartitions` for one partition's batches."""

    def __init__(self, whole: AcrossPartitions, number: int) -> None:
        self._whole = whole
        self._number = number

    def process(self, batch: StageBatch) -> None:
        """Fold the next records."""
        self._whole.process(self._number, batch)

    def again(self) -> tuple[int, int] | None:
        """Return None: one reading does."""
        return None

    def process_again(self, batch: StageBatch) -> None:
        """Not called."""
        raise NotImplementedError
