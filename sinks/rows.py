"""Which rows are written, when they expire, and in which batches: pure functions on columns."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fluvial.errors import SinkError
from fluvial.records import I64, Column, Longs, Mask, Spans
from fluvial.sinks.columns import cells
from fluvial.sinks.grouping import group
from fluvial.sinks.packing import composite_keys, fixed_width, rows_as_bytes

OFFSET_BITS = 44
# Cassandra refuses a longer time to live.
MAX_TTL_SECONDS = 20 * 365 * 24 * 3600
# A key component's length is a uint16 in the composite form of the partition key, and so is a clustering cell's.
MAX_KEY_BYTES = 65_535
# Some 285,000 years: beyond, a time in µs is no int64, and a day no date of Cassandra's.
MAX_TIME_MS = 9 * 10**15
# Batches over several partitions stay below what Cassandra warns of by default: 10 partitions, 5 KiB of mutations.
SHARED_PARTITIONS = 10
SHARED_BYTES = 5_000
# What a cell's timestamp, time to live and expiry add to its bytes in the message.
_CELL_BYTES = 12
_DAY_MS = 86_400_000
# What a number, and the framing of any column, may add to a partition key.
_FRAME_BYTES = 3 + 8

# The replicas of a partition, by its routing key: rows are put together only where they are the same.
Owner = Callable[[bytes], Hashable]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A prepared INSERT of one table.

    ``columns`` are the statement's markers in order, as (name, CQL type), but for the write timestamp and the time to
    live, which come last (the latter only when ``expires``). ``bucket`` names the column that is computed.
    ``statement`` is the driver's prepared statement: it forgets statements that nobody holds, and with them the way to
    prepare them again on a node that was restarted.
    """

    keyspace: str
    name: str
    query_id: bytes
    columns: tuple[tuple[str, str], ...]
    partition_key: tuple[str, ...]
    clustering: tuple[str, ...]
    bucket: Literal["day", "month"]
    expires: bool
    statement: Any = field(default=None, repr=False, compare=False)

    @property
    def prefix(self) -> bytes:
        """What comes before a row's cells in a BATCH message: kind (prepared), query id, number of values."""
        values = len(self.columns) + 1 + self.expires
        return b"\x01" + len(self.query_id).to_bytes(2, "big") + self.query_id + values.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Stamps:
    """Per row: the write timestamp (µs field of the protocol), and when it expires (epoch ms, None: never)."""

    written: I64
    expires_ms: I64 | None


@dataclass(frozen=True, slots=True)
class RowBatches:
    """Rows of one table ready to be sent: batch i has ``counts[i]`` rows, routed by ``routing[i]``.

    Its bytes are ``body[bounds[i]:bounds[i + 1]]``. ``rows`` are the rows in all batches; ``expired`` were past their
    retention, ``superseded`` had a newer row of the same primary key. Row j of them all is row ``source[j]`` of the
    columns, its bytes are ``body[starts[j]:starts[j + 1]]``.
    """

    plan: TablePlan
    body: memoryview
    bounds: list[int]
    counts: list[int]
    routing: list[bytes]
    rows: int
    expired: int
    superseded: int
    source: I64
    starts: I64

    def __len__(self) -> int:
        return len(self.counts)


def result_stamps(columns: Mapping[str, Column], retention_days: int) -> Stamps:
    """Return a result row's stamps: written at ``generation << 44 | source_offset``, expiring with its window."""
    written = (_longs(columns, "generation") << OFFSET_BITS) | _longs(columns, "source_offset")
    return Stamps(written, _longs(columns, "window_end") + retention_days * _DAY_MS if retention_days else None)


def buckets(time_ms: I64, bucket: Literal["day", "month"]) -> Longs:
    """Return the start of the UTC day or month that holds each time, as days since the epoch."""
    days = np.floor_divide(np.clip(time_ms, -MAX_TIME_MS, MAX_TIME_MS), _DAY_MS)
    if bucket == "month":
        days = days.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return Longs(days, np.ones(len(days), np.bool_))


def usable(columns: Mapping[str, Column], plan: TablePlan) -> Mask:
    """Return which rows have a primary key that Cassandra takes: nothing null, no far-off time, no text over 64 KiB.

    A partition key of several columns is no longer than that altogether.
    """
    if not plan.partition_key or not plan.clustering:
        raise SinkError(f"{plan.name} has no primary key", hint="`fluvial init` creates the tables")
    types = dict(plan.columns)
    good: Mask = np.ones(len(columns[plan.partition_key[0]]), np.bool_)
    together = np.zeros(len(good), np.int64)
    for name in (*plan.partition_key, *plan.clustering):
        column = columns[name]
        if isinstance(column, Spans):
            good &= (column.length >= 0) & (column.length <= MAX_KEY_BYTES)
            if name in plan.partition_key:
                together += column.length
        elif isinstance(column, Longs):
            good &= column.valid
            if types.get(name) == "timestamp":
                good &= (column.values >= -MAX_TIME_MS) & (column.values <= MAX_TIME_MS)
        else:
            raise SinkError(f"{plan.name}: column {name} cannot be a key", hint="make keys of text, numbers and times")
    return good & (together + _FRAME_BYTES * len(plan.partition_key) <= MAX_KEY_BYTES)


def row_batches(
    plan: TablePlan,
    columns: Mapping[str, Column],
    rows: I64,
    stamps: Stamps,
    *,
    now_ms: int,
    rows_per_batch: int,
    owner: Owner | None = None,
) -> RowBatches:
    """Group the given rows by Cassandra partition, in order, in batches of at most ``rows_per_batch``.

    Partitions of few rows share a batch if they have the same replicas: a message per row costs more than the row.
    Without ``owner`` all have (a cluster of one node).

    Of several rows with one primary key only the one with the greatest write timestamp is kept: Cassandra would come to
    the same.

    Raises:
        SinkError: a column is missing or does not fit its CQL type.
    """
    given = len(rows)
    ttl: I64 | None = None
    if stamps.expires_ms is not None:
        ttl = np.minimum((stamps.expires_ms - now_ms) // 1000, MAX_TTL_SECONDS)
        rows = rows[ttl[rows] > 0]
    alive = len(rows)
    cell = {name: cells(_column(columns, name, plan), kind) for name, kind in plan.columns}
    partition_cells = [cell[name] for name in plan.partition_key]
    primary_cells = [cell[name] for name in (*plan.partition_key, *plan.clustering)]
    rows = rows[_newest(rows_as_bytes(b"", primary_cells, rows), stamps.written[rows])]
    partition, count = group(rows_as_bytes(b"", partition_cells, rows))
    order = np.argsort(partition, kind="stable")
    sizes = np.bincount(partition, minlength=count)
    routing = _texts(composite_keys(partition_cells, rows[order[np.cumsum(sizes) - sizes]]))
    owners = _dense([owner(key) for key in routing]) if owner is not None else np.zeros(count, np.int64)
    if owners.any():
        by_owner = np.argsort(owners, kind="stable")
        rank = np.empty(count, np.int64)
        rank[by_owner] = np.arange(count)
        order = np.argsort(rank[partition], kind="stable")
        sizes, owners, routing = sizes[by_owner], owners[by_owner], [routing[i] for i in by_owner.tolist()]
    rows = rows[order]
    first, size, run = _chunks(sizes, rows_per_batch)
    values = [cell[name] for name, _ in plan.columns]
    values.append(fixed_width(stamps.written, ">i8"))
    if ttl is not None:
        values.append(fixed_width(np.maximum(ttl, 0), ">i4"))
    packed = rows_as_bytes(plan.prefix, values, rows)
    bounds = np.append(packed.start[first], len(packed.buffer))
    weight = np.diff(bounds) + size * (_CELL_BYTES * len(values))
    kept = _shared(weight, owners[run])
    return RowBatches(
        plan,
        packed.buffer.data,
        [*bounds[kept].tolist(), len(packed.buffer)],
        np.diff(np.append(first[kept], len(rows))).tolist(),
        [routing[i] for i in run[kept].tolist()],
        len(rows),
        given - alive,
        alive - len(rows),
        rows,
        np.append(packed.start, len(packed.buffer)),
    )


def _newest(primary: Spans, written: I64) -> I64:
    """Return the places, ascending, of each primary key's row with the greatest timestamp (of equal ones, the last)."""
    groups, count = group(primary)
    if count == len(groups):
        return np.arange(count)
    order = np.argsort(written, kind="stable")
    newest = np.zeros(count, np.int64)
    newest[groups[order]] = order  # numpy keeps the last of several assignments to one place
    return np.sort(newest)


def _chunks(sizes: I64, most: int) -> tuple[I64, I64, I64]:
    """Cut runs of the given sizes into chunks of at most ``most``; return each chunk's begin, size and run."""
    chunks = -(-sizes // most)
    run = np.repeat(np.arange(len(sizes)), chunks)
    within = np.arange(len(run)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    first = (np.cumsum(sizes) - sizes)[run] + within * most
    return first, np.minimum(sizes[run] - within * most, most), run


def _shared(weight: I64, owners: I64) -> I64:
    """Return which chunks begin a batch, so that small chunks of one owner that follow each other share one."""
    begins = []
    partitions, total, last = 0, 0, -1
    for i, (w, o) in enumerate(zip(weight.tolist(), owners.tolist(), strict=True)):
        if i == 0 or partitions == SHARED_PARTITIONS or total + w > SHARED_BYTES or o != last:
            begins.append(i)
            partitions, total, last = 0, 0, o
        partitions += 1
        total += w
    return np.array(begins, np.int64)


def _dense(names: list[Hashable]) -> I64:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(n, len(numbers)) for n in names], np.int64)


def _texts(spans: Spans) -> list[bytes]:
    """Return spans that lie end to end in one buffer as bytes objects."""
    text = spans.buffer.tobytes()
    return [text[a : a + n] for a, n in zip(spans.start.tolist(), spans.length.tolist(), strict=True)]


def _longs(columns: Mapping[str, Column], name: str) -> I64:
    column = columns[name]
    if not isinstance(column, Longs):
        raise SinkError(f"{name} holds no integers", hint="see the result schema")
    return column.values


def _column(columns: Mapping[str, Column], name: str, plan: TablePlan) -> Column:
    if name not in columns:
        raise SinkError(
            f"table {plan.keyspace}.{plan.name} has a column {name}, its rows have not",
            hint="the table and the pipeline's declaration differ: `fluvial init` names the differences",
        )
    return columns[name]
