"""Copies of events under another key, with the upstream's time announced in between (docs/reference/semantics.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.records import I64, Column, Longs, StringLists, take
from fluvial.schemas.declarations import Hopping, Pipeline, Rekey, Tumbling
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import StageBatch
from fluvial.stream_apps.interning import Interner


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """Records for ``rekey.topic`` and the announcements among them.

    Before record number ``position[j]`` (positions ascend, the last ones may be n), the upstream partition announces
    ``instant[j]`` (epoch ms) to every partition of the topic.
    """

    rekey: Rekey
    partition: int
    columns: Mapping[str, Column]
    records: int
    position: I64
    instant: I64


class EventRekeyer:
    """Rekeys the events of one partition. Where it announces is a function of the log, not of the batches."""

    def __init__(self, rekey: Rekey, partition: int) -> None:
        self.rekey = rekey
        self.partition = partition
        self.time = k.NEG

    def process(self, batch: StageBatch, event_time: str) -> Rekeyed:
        """Return the copies of a batch's events."""
        rekey = self.rekey
        is_event = batch.kind == k.EVENT
        times = batch.events.columns[event_time]
        assert isinstance(times, Longs)
        at = np.where(is_event, times.values, np.where(batch.kind == k.PARTITION_TICK, batch.tick, k.NEG))
        now = np.maximum.accumulate(np.concatenate([[self.time], at]))
        before, after = now[:-1], now[1:]
        step = rekey.announce_ms
        crossed = (after // step > before // step) if len(at) else np.zeros(0, np.bool_)
        ticked = ~is_event & (after > before)
        announce = np.flatnonzero(crossed | ticked)
        instant = np.where(ticked, after, after // step * step)[announce]
        if len(now):
            self.time = int(now[-1])
        row = np.flatnonzero(is_event)
        columns: dict[str, Column]
        if rekey.explode is None:
            index = np.zeros(len(row), np.int64)
            columns = {}
        else:
            lists = batch.events.columns[rekey.explode]
            assert isinstance(lists, StringLists)
            row, index, place = _distinct_items(lists, is_event)
            columns = {rekey.explode_as or rekey.explode: lists.items.take(place)}
        columns |= {f: take(batch.events.columns[f], row) for f in rekey.fields}
        columns |= upstream_columns(self.partition, batch.offset[row], index)
        return Rekeyed(rekey, self.partition, columns, len(row), np.searchsorted(row, announce, side="left"), instant)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what `restore` needs."""
        return {"time": np.array([self.time], np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a state that `state` returned."""
        self.time = int(state["time"][0])


class ResultRekeyer:
    """Forwards the final rows of a pipeline, and announces through when its windows are closed."""

    def __init__(self, rekey: Rekey, pipeline: Pipeline, partition: int) -> None:
        w = pipeline.window
        assert isinstance(w, Tumbling | Hopping)
        self.rekey = rekey
        self.partition = partition
        # No window to come starts before (closed through) − size + hop.
        self._back = w.size_ms - (w.hop_ms if isinstance(w, Hopping) else w.size_ms)
        self.announced = k.NEG

    def process(self, columns: Mapping[str, Column], key: I64, closed_through: int) -> Rekeyed:
        """Return the final ones of the result rows, in an order that depends on the log only; ``key`` are their key ids."""
        final, offset, start, end = (
            _values(columns[f]) for f in ("final", "source_offset", "window_start", "window_end")
        )
        row = np.flatnonzero(final)
        row = row[np.lexsort((key[row], start[row], offset[row]))]
        offset, end = offset[row], end[row]
        is_first = np.concatenate([[True], offset[1:] != offset[:-1]]) if len(row) else np.zeros(0, np.bool_)
        group = np.flatnonzero(is_first)
        index = np.arange(len(row)) - np.repeat(group, np.diff(np.concatenate([group, [len(row)]])))
        out = {f: take(columns[f], row) for f in self.rekey.fields} | upstream_columns(self.partition, offset, index)
        after = np.concatenate([group[1:], [len(row)]]).astype(np.int64) if len(row) else np.zeros(0, np.int64)
        through = np.maximum.reduceat(end, group) if len(row) else np.zeros(0, np.int64)
        position, instant = np.append(after, len(row)), np.append(through, closed_through) - self._back
        rising = np.maximum.accumulate(np.concatenate([[self.announced], instant]))
        news = (instant > rising[:-1]) & (instant > k.NEG // 2)
        if news.any():
            self.announced = int(rising[-1])
        return Rekeyed(self.rekey, self.partition, out, len(row), position[news], instant[news])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what `restore` needs."""
        return {"announced": np.array([self.announced], np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a state that `state` returned."""
        self.announced = int(state["announced"][0])


def upstream_columns(partition: int, offset: I64, index: I64) -> dict[str, Column]:
    """Return the three columns that tell where rekeyed records come from."""
    n = len(offset)
    every = np.ones(n, np.bool_)
    return {
        "upstream_partition": Longs(np.full(n, partition, np.int64), every),
        "upstream_offset": Longs(offset, every),
        "upstream_index": Longs(index.astype(np.int64), every),
    }


def _distinct_items(lists: StringLists, is_event: NDArray[np.bool_]) -> tuple[I64, I64, I64]:
    """Return (row, index, place) of every different item of every event's list, in order."""
    row = np.repeat(np.arange(len(lists)), np.diff(lists.offsets))
    place = np.arange(int(lists.offsets[0]), int(lists.offsets[-1]))
    kept = is_event[row]
    row, place = row[kept], place[kept]
    item = Interner().ids([lists.items.take(place)])
    kept = item >= 0
    row, place, item = row[kept], place[kept], item[kept]
    _, first = np.unique((row << 32) | item, return_index=True)
    first = np.sort(first)
    row, place = row[first], place[first]
    starts = np.searchsorted(row, row, side="left")
    return row, np.arange(len(row)) - starts, place


def _values(column: Column) -> I64:
    assert isinstance(column, Longs)
    return column.values
