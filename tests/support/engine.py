"""The product's aggregation, fed with the oracle's records: so that one test can ask both the same question."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fluvial.oracle.records import Record
from fluvial.records import Column, DoubleLists, Doubles, EventColumns, Longs, Spans, StringLists
from fluvial.schemas.declarations import Pipeline
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import Aggregation, StageBatch
from fluvial.stream_apps.snapshots import arrays_of

KINDS = {"event": k.EVENT, "tick": k.PARTITION_TICK, "keyed_tick": k.KEYED_TICK}


class _Buffer:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self.built: list[tuple[list[int], list[int]]] = []

    def add(self, strings: Iterable[bytes | None]) -> int:
        start, length = [], []
        for s in strings:
            start.append(len(self.data))
            length.append(-1 if s is None else len(s))
            self.data += s or b""
        self.built.append((start, length))
        return len(self.built) - 1

    def spans(self, i: int, buffer: Any) -> Spans:
        start, length = self.built[i]
        return Spans(buffer, np.array(start, np.int64), np.array(length, np.int64))


def batch_of(records: Sequence[Record], fields: dict[str, type]) -> StageBatch:
    """Return oracle records (no bad ones) as the columns that the product takes."""
    held = _Buffer()
    empty = {str: "", float: 0.0, int: 0}
    events = [r.event if r.event is not None else {f: empty[t] for f, t in fields.items()} for r in records]
    string_fields = {
        f: held.add(None if e[f] is None else e[f].encode() for e in events) for f, t in fields.items() if t is str
    }
    record_key = held.add(r.key for r in records)
    buffer = np.frombuffer(bytes(held.data), np.uint8)
    columns: dict[str, Column] = {f: held.spans(i, buffer) for f, i in string_fields.items()}
    for f, t in fields.items():
        valid = np.array([e[f] is not None for e in events], np.bool_)
        if t is float:
            columns[f] = Doubles(np.array([e[f] if e[f] is not None else 0.0 for e in events], np.float64), valid)
        elif t is int:
            columns[f] = Longs(np.array([e[f] if e[f] is not None else 0 for e in events], np.int64), valid)
    kind = np.array([KINDS[r.kind] for r in records], np.uint8)
    return StageBatch(
        kind=kind,
        offset=np.array([r.offset for r in records], np.int64),
        tick=np.array([r.time or 0 for r in records], np.int64),
        record_key=held.spans(record_key, buffer),
        upstream=np.array([-1 if r.upstream is None else r.upstream for r in records], np.int64),
        events=EventColumns(columns, kind == k.EVENT, ()),
    )


def rows_of(columns: dict[str, Column]) -> list[dict[str, Any]]:
    """Return result columns as the oracle's rows."""
    lists = {f: to_list(c) for f, c in columns.items()}
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    for row in rows:
        row["final"] = bool(row["final"])
    return rows


def to_list(column: Column) -> list[Any]:
    """Return a column as Python values."""
    if isinstance(column, Spans):
        return [None if (b := column.bytes_at(i)) is None else b.decode() for i in range(len(column))]
    if isinstance(column, StringLists | DoubleLists):
        items = to_list(column.items) if isinstance(column, StringLists) else column.items.tolist()
        return [items[a:b] for a, b in zip(column.offsets[:-1].tolist(), column.offsets[1:].tolist(), strict=True)]
    return [v if ok else None for v, ok in zip(column.values.tolist(), column.valid.tolist(), strict=True)]


def run_batches(
    pipeline: Pipeline,
    batches: Sequence[Sequence[Record]],
    fields: dict[str, type],
    *,
    upstream_partitions: int = 0,
    restart: bool = False,
    exhausted: bool = False,
) -> tuple[list[dict[str, Any]], list[tuple[int, int]], dict[str, int]]:
    """Return (rows, late as (offset, late_by_ms), counts); ``restart`` goes through a checkpoint after every batch."""
    a = Aggregation(pipeline, partition=0, upstream_partitions=upstream_partitions)
    rows, late, last = [], [], -1
    for records in batches:
        batch = batch_of(records, fields)
        columns, found = a.process(batch)
        rows += rows_of(columns)
        late += list(zip(batch.offset[found.record].tolist(), found.late_by_ms.tolist(), strict=True))
        last = records[-1].offset if records else last
        if restart:
            state = a.state()
            a = Aggregation(pipeline, partition=0, upstream_partitions=upstream_partitions)
            a.restore(arrays_of(state))
    if exhausted:
        rows += rows_of(a.open_rows(last))
    return rows, late, a.windows.counts
