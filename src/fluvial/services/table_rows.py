"""The rows of a range of a result table as Arrow, and how two sets of rows differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from cassandra.metadata import protect_name
from cassandra.query import SimpleStatement

from fluvial.arrow_cells import arrow_array
from fluvial.query import QueryError, QueryTable
from fluvial.query_reader import pages_ahead
from fluvial.records import I64, Column
from fluvial.schemas.columns import column_to_arrow
from fluvial.stream_apps.replay_rules import Span

PROVENANCE = ("generation", "source_partition", "source_offset")
PAGE_ROWS = 5_000
AHEAD = 64
BATCH_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Differences:
    """Which rows of two tables of the same columns belong together: row numbers of each.

    ``same`` and ``changed`` are pairs int64[n, 2] (left, right), in the order of the left; ``left`` and ``right`` are rows
    that only that side has.
    """

    same: I64
    changed: I64
    left: I64
    right: I64


def read_rows(session: Any, table: QueryTable, span: Span) -> pa.Table:
    """Return all rows of a table whose time (first clustering column) lies in a span; see `plain` for the types.

    Blocking. Asks for the table's partitions, then reads those of the span's buckets, `AHEAD` at once.

    Raises:
        QueryError: Cassandra does not answer.
    """
    name = f"{protect_name(table.keyspace)}.{protect_name(table.name)}"
    partition_key = [*(n for n, _ in table.key), table.bucket]
    shown = ", ".join(protect_name(c) for c in partition_key)
    columns = [n for n, _ in table.columns if n != table.bucket]
    time = protect_name(table.time)
    try:
        found = session.execute(SimpleStatement(f"SELECT DISTINCT {shown} FROM {name}", fetch_size=PAGE_ROWS))  # noqa: S608
        first, last = _bucket_of(span.begin, table.bucket), _bucket_of(span.end - 1, table.bucket)
        wanted = (key for key in found if first <= key[-1].date() <= last)
        where = " AND ".join(f"{protect_name(c)} = ?" for c in partition_key)
        statement = session.prepare(
            f"SELECT {', '.join(protect_name(c) for c in columns)} FROM {name} "  # noqa: S608 — identifiers quoted
            f"WHERE {where} AND {time} >= ? AND {time} < ?"
        )
        statement.fetch_size = PAGE_ROWS
        bounds = _naive(span.begin), _naive(span.end)
        return _collected(table, columns, pages_ahead(session, statement, ((*key, *bounds) for key in wanted), AHEAD))
    except (DriverException, NoHostAvailable) as e:
        raise QueryError(
            f"Cassandra does not answer about {table.name}: {type(e).__name__}: {e}", hint="`fluvial status`"
        ) from None


def produced(columns: Mapping[str, Column]) -> pa.Table:
    """Return result columns as an Arrow table; see `plain` for the types."""
    return plain(pa.table({name: column_to_arrow(c) for name, c in columns.items()}))


def plain(table: pa.Table) -> pa.Table:
    """Return a table with texts as ``string``, and times (epoch ms), booleans and integers as ``int64``."""
    columns = []
    for c in table.columns:
        kind = c.type
        if pa.types.is_large_string(kind):
            c = c.cast(pa.string())
        elif pa.types.is_timestamp(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
            c = c.cast(pa.int64())
        elif pa.types.is_list(kind) and pa.types.is_large_string(kind.value_type):
            c = c.cast(pa.list_(pa.string()))
        columns.append(c)
    return pa.Table.from_arrays(columns, names=table.column_names)


def differences(primary_key: Sequence[str], left: pa.Table, right: pa.Table) -> Differences:
    """Compare rows by primary key, and their values by the bit; `PROVENANCE` and columns of one side do not count."""
    keys = list(primary_key)
    a = left.select(keys).append_column("left", pa.array(np.arange(len(left))))
    b = right.select(keys).append_column("right", pa.array(np.arange(len(right))))
    both = a.join(b, keys, join_type="full outer")
    mine, theirs = (both[side].fill_null(-1).to_numpy().astype(np.int64) for side in ("left", "right"))
    paired = (mine >= 0) & (theirs >= 0)
    pairs = np.stack([mine[paired], theirs[paired]], axis=1)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    values = [n for n in left.column_names if n in right.column_names and n not in keys and n not in PROVENANCE]
    same = np.ones(len(pairs), np.bool_)
    for name in values:
        same &= _equal(left[name].take(pairs[:, 0]), right[name].take(pairs[:, 1]))
    return Differences(pairs[same], pairs[~same], np.sort(mine[theirs < 0]), np.sort(theirs[mine < 0]))


def primary_key(table: QueryTable) -> list[str]:
    """Return the columns that tell rows apart, the bucket excepted."""
    return [*(name for name, _ in table.key), table.time]


def _equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> Any:
    if pa.types.is_list(a.type):
        return np.array(
            [(x or None) == (y or None) for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)], np.bool_
        )
    if pa.types.is_floating(a.type) and pa.types.is_floating(b.type):
        x, y = (_bits(c) for c in (a, b))
        return np.asarray((x == y) & (a.is_null().to_numpy() == b.is_null().to_numpy()))
    equal = pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(a.is_null(), b.is_null()))
    return np.asarray(equal.to_numpy(), np.bool_)


def _bits(column: pa.ChunkedArray) -> I64:
    numbers = column.fill_null(0.0).to_numpy().astype(np.float64)
    numbers = np.where(np.isnan(numbers), np.nan, numbers)
    return numbers.view(np.int64)


def _collected(table: QueryTable, columns: list[str], pages: Iterable[list[Any]]) -> pa.Table:
    kinds = dict(table.columns)
    batches, rows = [], list[Any]()

    def convert() -> None:
        arrays = [arrow_array(c, kinds[n]) for c, n in zip(zip(*rows, strict=True), columns, strict=True)]
        batches.append(pa.Table.from_arrays(arrays, names=columns))
        rows.clear()

    for page in pages:
        rows += page
        if len(rows) >= BATCH_ROWS:
            convert()
    if rows:
        convert()
    if not batches:
        batches = [pa.Table.from_arrays([arrow_array([], kinds[n]) for n in columns], names=columns)]
    return plain(pa.concat_tables(batches))


def _bucket_of(ms: int, bucket: str) -> date:
    day = datetime.fromtimestamp(ms / 1000, UTC).date()
    return day if bucket == "day" else day.replace(day=1)


def _naive(ms: int) -> datetime:
    """Return an instant as the driver takes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None)
