"""One pipeline's state for one partition: events as columns in, result rows and late events as columns out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fluvial.errors import PipelineError
from fluvial.records import F64, I64, Column, DoubleLists, Doubles, EventColumns, Longs, Spans, StringLists
from fluvial.schemas.declarations import UPSTREAM_IDENTITY, Pipeline, Session
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.hashing import hash_spans
from fluvial.stream_apps.interning import Interner
from fluvial.stream_apps.sessions import SessionWindows
from fluvial.stream_apps.snapshots import Room, State
from fluvial.stream_apps.windows import AlignedWindows, Inputs, Late, Rows

NUMERIC = {
    "sum": k.V_SUM, "mean": k.V_MEAN, "min": k.V_MIN, "max": k.V_MAX, "first": k.V_FIRST, "last": k.V_LAST,
    "stddev": k.V_STDDEV, "p50": k.V_P50, "p95": k.V_P95, "p99": k.V_P99,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StageBatch:
    """The events and ticks of one partition between two offsets, bad records already set aside.

    ``kind`` uint8[n] (`layout.EVENT` …), ``offset``, ``tick`` (its instant, epoch ms; 0 for events), ``record_key``,
    ``upstream`` (the tick's upstream partition or −1); ``events`` row for row (zeros where a row is a tick).
    """

    kind: NDArray[np.uint8]
    offset: I64
    tick: I64
    record_key: Spans
    upstream: I64
    events: EventColumns

    def __len__(self) -> int:
        return len(self.offset)


class Windows(Protocol):
    """What tumbling, hopping and session windows have in common; ``ki`` is one row per key (`layout`)."""

    ki: I64

    def process(
        self, inputs: Inputs, *, keys: int, record_keys: int, items: tuple[NDArray[np.uint8], I64]
    ) -> tuple[Rows, Late]: ...
    def open_rows(self, offset: int, items: tuple[NDArray[np.uint8], I64]) -> Rows: ...
    def state(self, room: Room, *, keys: int, record_keys: int) -> State: ...
    def state_bytes(self) -> int: ...
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None: ...
    @property
    def open_windows(self) -> int: ...
    @property
    def partition_time(self) -> int: ...
    @property
    def closed_through(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...


class Aggregation:
    """A pipeline's open windows in one partition. Not thread-safe: one batch after the other."""

    def __init__(
        self, pipeline: Pipeline, *, partition: int, generation: int = 0, upstream_partitions: int = 0
    ) -> None:
        self.pipeline = pipeline
        self.partition = partition
        self.generation = generation
        self._keys = Interner(len(pipeline.key))
        self._record_keys = Interner()
        self._items = Interner()
        kinds = SessionWindows if isinstance(pipeline.window, Session) else AlignedWindows
        self.last_keys = np.empty(0, np.int64)
        self.last_offset = -1
        self.windows: Windows = kinds(pipeline, upstream_partitions=upstream_partitions)

    def process(self, batch: StageBatch) -> tuple[dict[str, Column], Late]:
        """Fold a batch; return the result rows as columns and the late events (their numbers are rows of the batch).

        ``last_keys`` are the rows' key ids afterwards, ``last_offset`` the last offset handled.
        """
        rows, late = self.fold(batch)
        self.last_keys = rows.ints[:, k.O_KEY]
        return self.columns(rows), late

    def fold(self, batch: StageBatch) -> tuple[Rows, Late]:
        """Fold a batch as `process` does; return the rows as the engine emits them (see `columns`)."""
        inputs = self._inputs(batch)
        rows, late = self.windows.process(
            inputs, keys=self._keys.count, record_keys=self._record_keys.count, items=self._items.arena()
        )
        if len(batch):
            self.last_offset = int(batch.offset[-1])
        return rows, late

    def open_rows(self, offset: int) -> dict[str, Column]:
        """Return early rows of all open windows as of ``offset``, for the end of a bounded run."""
        return self.columns(self.still_open(offset))

    def still_open(self, offset: int) -> Rows:
        """Return what `open_rows` does as the engine emits it."""
        return self.windows.open_rows(offset, self._items.arena())

    def key_ids(self, columns: Sequence[Spans]) -> I64:
        """Return the ids of keys, int64[n], one span column per key field; a key that is new gets one."""
        return self._keys.ids(columns)

    def key_columns(self, ids: I64) -> list[Spans]:
        """Return the fields of the keys that have the given ids."""
        return [self._keys.column(i, ids) for i in range(len(self.pipeline.key))]

    def closed_for(self, ids: I64) -> I64:
        """Return C of the keys that have the given ids, int64[n] (`layout.NEG`: nothing is closed)."""
        if self.pipeline.time == "partition":
            return np.full(len(ids), self.windows.closed_through, np.int64)
        known = self.windows.ki[:, k.K_CLOSED]
        return np.where(ids < len(known), known[np.minimum(ids, len(known) - 1)], k.NEG)

    def columns(self, rows: Rows) -> dict[str, Column]:
        """Return emitted rows as the columns of the result schema."""
        n = len(rows)
        every = np.ones(n, np.bool_)

        def longs(values: I64) -> Longs:
            return Longs(np.ascontiguousarray(values), every)

        out: dict[str, Column] = {
            f: self._keys.column(i, rows.ints[:, k.O_KEY]) for i, f in enumerate(self.pipeline.key)
        }
        out["window_start"], out["window_end"] = longs(rows.ints[:, k.O_START]), longs(rows.ints[:, k.O_END])
        for a in self.pipeline.aggregates:
            if a == "count":
                out[a] = longs(rows.ints[:, k.O_COUNT])
            elif a == "distinct":
                out[a] = longs(rows.ints[:, k.O_DISTINCT])
            elif a == "top":
                out |= self._top(rows)
            else:
                out[a] = Doubles(np.ascontiguousarray(rows.doubles[:, NUMERIC[a]]), every)
        out["duplicates"], out["final"] = longs(rows.ints[:, k.O_DUP]), longs(rows.ints[:, k.O_FINAL])
        out["generation"] = longs(np.full(n, self.generation, np.int64))
        out["source_partition"] = longs(np.full(n, self.partition, np.int64))
        out["source_offset"] = longs(rows.ints[:, k.O_OFFSET])
        return out

    def state(self, room: Room | None = None) -> State:
        """Return a copy, made in ``room``, of everything that decides what comes next, by name."""
        room = room or Room(0)
        windows = self.windows.state(room, keys=self._keys.count, record_keys=self._record_keys.count)
        parts = {"keys": self._keys.state(), "record_keys": self._record_keys.state(), "items": self._items.state()}
        flat: State = {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}
        flat |= {f"windows.{name}": a for name, a in windows.items()}
        return flat | {"last_offset": np.array([self.last_offset], np.int64)}

    def state_bytes(self) -> int:
        """Return about how much room `state` takes; it may be asked while records are folded."""
        return self.windows.state_bytes()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up the arrays of a state that `state` returned."""

        def part(name: str) -> dict[str, NDArray[Any]]:
            return {n.removeprefix(name + "."): a for n, a in state.items() if n.startswith(name + ".")}

        self.last_offset = int(state["last_offset"][0])
        self._keys.restore(part("keys"))
        self._record_keys.restore(part("record_keys"))
        self._items.restore(part("items"))
        self.windows.restore(part("windows"))

    def _inputs(self, batch: StageBatch) -> Inputs:
        p, columns, n = self.pipeline, batch.events.columns, len(batch)
        is_event = batch.kind == k.EVENT
        key_columns = [_spans(columns, f, p) for f in p.key]
        if not is_event.all():
            first = key_columns[0]
            key_columns[0] = Spans(first.buffer, first.start, np.where(is_event, first.length, -1))
        known = self._keys.count
        key = self._keys.ids(key_columns)
        time = np.where(is_event, _longs(columns, p.event_time, p).values, batch.tick)
        a, b = self._identity(columns, time)
        distinct = np.zeros(n, np.uint64)
        if p.distinct is not None:
            spans = _spans(columns, p.distinct, p)
            distinct = np.where(spans.length >= 0, hash_spans(spans), np.uint64(0))
        item = self._items.ids([_spans(columns, p.top, p)]) if p.top is not None else np.full(n, -1, np.int64)
        return Inputs(
            kind=batch.kind, offset=batch.offset, time=time, key=key, record_key=self._record_key_ids(batch, key, known),
            identity_a=a, identity_b=b, value=numeric(columns, p), distinct=distinct, item=item, upstream=batch.upstream,
        )  # fmt: skip

    def _record_key_ids(self, batch: StageBatch, key: I64, known: int) -> I64:
        """Return the record keys' ids where the engine asks for them: at keyed ticks and where a key is seen first."""
        out = np.full(len(batch), -1, np.int64)
        before = np.maximum.accumulate(np.concatenate([[known - 1], key]))[:-1]
        rows = np.flatnonzero((key > before) | (batch.kind == k.KEYED_TICK))
        if len(rows):
            out[rows] = self._record_keys.ids([batch.record_key.take(rows)])
        return out

    def _identity(self, columns: Mapping[str, Column], time: I64) -> tuple[I64, I64]:
        """Return two words per event that are equal exactly (strings: but for a 128-bit collision) for equal identities.

        (NEG, NEG) where no identity field has a value.
        """
        p, n = self.pipeline, len(time)
        if p.identity == UPSTREAM_IDENTITY:
            part, offset, index = (
                _longs(columns, f, p).values for f in ("upstream_partition", "upstream_offset", "upstream_index")
            )
            return (part << 32) | index, offset
        a, b = np.full(n, k.NEG, np.int64), np.full(n, k.NEG, np.int64)
        x: I64
        y: I64
        undecided = np.ones(n, np.bool_)
        for tag, name in enumerate(p.identity, 1):
            column = columns[name]
            if isinstance(column, Spans):
                here = undecided & (column.length >= 0)
                x, y = hash_spans(column, tag).view(np.int64), hash_spans(column, ~tag & 0xFFFF).view(np.int64)
            elif isinstance(column, Doubles):
                here = undecided & column.valid
                x, y = np.full(n, tag, np.int64), (column.values + 0.0).view(np.int64)
            elif isinstance(column, Longs):
                here = undecided & column.valid
                x, y = np.full(n, tag, np.int64), column.values
            else:
                raise PipelineError(f"pipeline {p.name}: identity field {name} is a list", hint="use scalar fields")
            a, b = np.where(here, x, a), np.where(here, y, b)
            undecided &= ~here
        if p.identity_has_time:
            a = np.where(undecided, a, a ^ (time << 4))
        return a, b

    def _top(self, rows: Rows) -> dict[str, Column]:
        held = rows.top_item >= 0
        offsets = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int64)
        return {
            "top": StringLists(offsets, self._items.column(0, rows.top_item[held])),
            "top_counts": DoubleLists(offsets, rows.top_sum[held]),
        }


def numeric(columns: Mapping[str, Column], pipeline: Pipeline) -> F64:
    """Return the pipeline's value column as doubles (zeros when it has none)."""
    if pipeline.value is None:
        return np.zeros(len(next(iter(columns.values()))))
    column = columns[pipeline.value]
    if isinstance(column, Doubles):
        return column.values
    if isinstance(column, Longs):
        return column.values.astype(np.float64)
    raise PipelineError(
        f"pipeline {pipeline.name}: value field {pipeline.value} is not a number", hint="choose a numeric field"
    )


def _spans(columns: Mapping[str, Column], name: str, pipeline: Pipeline) -> Spans:
    column = columns[name]
    if not isinstance(column, Spans):
        raise PipelineError(
            f"pipeline {pipeline.name}: field {name} is not a string", hint="key, distinct and top fields are strings"
        )
    return column


def _longs(columns: Mapping[str, Column], name: str, pipeline: Pipeline) -> Longs:
    column = columns[name]
    if not isinstance(column, Longs):
        raise PipelineError(
            f"pipeline {pipeline.name}: field {name} is not an integer or timestamp", hint="see its schema"
        )
    return column
