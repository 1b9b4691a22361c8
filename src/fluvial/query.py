"""Asking a table by key and time: which partitions hold the answer, and the statement that reads one of them.

Every statement names one whole partition key and a half-open range of its first clustering column. Pure; the reading is
in `fluvial.query_reader`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Literal

from cassandra.metadata import protect_name

from fluvial.arrow_cells import key_value
from fluvial.errors import FluvialError

# One read per bucket: 27 years of days.
MAX_BUCKETS = 10_000

Order = Literal["newest", "oldest"]


class QueryError(FluvialError):
    """A query names something that does not exist, or Cassandra does not answer it."""


@dataclass(frozen=True, slots=True)
class QueryTable:
    """A table as its readers see it.

    ``key`` are the partition key's columns but the ``bucket``; ``time`` is the first clustering column. ``columns`` has
    all columns in the order of the table, as (name, CQL type).
    """

    keyspace: str
    name: str
    key: tuple[tuple[str, str], ...]
    bucket: Literal["day", "month"]
    time: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Half-open: ``begin`` ≤ time < ``end``."""

    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Query:
    """What is read of a table: one key's rows in a time range, some of its columns, at most ``limit`` rows (0: all)."""

    table: QueryTable
    key: tuple[Any, ...]
    range: TimeRange
    columns: tuple[str, ...]
    order: Order = "newest"
    limit: int = 0

    @property
    def cql(self) -> str:
        """The statement of one bucket, with markers for the key, the bucket, the range and the limit."""
        t = self.table
        names = ", ".join(protect_name(c) for c in self.columns)
        where = " AND ".join(f"{protect_name(c)} = ?" for c in (*(name for name, _ in t.key), t.bucket))
        time = protect_name(t.time)
        return (
            f"SELECT {names} FROM {protect_name(t.keyspace)}.{protect_name(t.name)} "  # noqa: S608 — identifiers quoted
            f"WHERE {where} AND {time} >= ? AND {time} < ? "
            f"ORDER BY {time} {'DESC' if self.order == 'newest' else 'ASC'} LIMIT ?"
        )


def plan(
    table: QueryTable,
    key: Sequence[str],
    span: TimeRange,
    *,
    columns: Sequence[str] = (),
    order: Order = "newest",
    limit: int = 0,
) -> Query:
    """Check a question against a table; no columns stand for all of them.

    Raises:
        QueryError: the wrong number of keys, an unknown column, an empty or too long range.
    """
    names = [name for name, _ in table.key]
    if len(key) != len(names):
        wanted = " ".join(n.upper() for n in names)
        raise QueryError(
            f"{table.name} is read by {' and '.join(names)}, given {_plural(len(key), 'key')}",
            hint=f"fluvial query {table.name} {wanted} --from -1h",
        )
    values = tuple(key_value(text, kind, name) for text, (name, kind) in zip(key, table.key, strict=True))
    known = [name for name, _ in table.columns]
    unknown = [c for c in columns if c not in known]
    if unknown:
        raise QueryError(f"{table.name} has no column {', '.join(unknown)}", hint=f"its columns are {', '.join(known)}")
    if span.begin >= span.end:
        raise QueryError(
            f"the range from {iso(span.begin)} to {iso(span.end)} is empty", hint="--from must be before --to"
        )
    query = Query(table, values, span, tuple(columns) or tuple(known), order, limit)
    buckets_of(query)
    return query


def buckets_of(query: Query) -> list[date]:
    """Return the buckets that can hold rows of the range, in the order in which they are read.

    Raises:
        QueryError: too many of them.
    """
    first, last = query.range.begin.date(), (query.range.end - timedelta(milliseconds=1)).date()
    found = list(islice(_buckets(first, last, query.table.bucket), MAX_BUCKETS + 1))
    if len(found) > MAX_BUCKETS:
        raise QueryError(
            f"the range has more than {MAX_BUCKETS:,} {query.table.bucket}s, each of which is a read",
            hint="ask for a shorter range",
        )
    return found if query.order == "oldest" else found[::-1]


def iso(moment: datetime) -> str:
    """Return an instant in RFC 3339, without the zeros."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond >= 1000 else "seconds")
    return text.replace("+00:00", "Z")


def _buckets(first: date, last: date, bucket: str) -> Iterator[date]:
    at = first if bucket == "day" else first.replace(day=1)
    while at <= last:
        yield at
        at = at + timedelta(days=1) if bucket == "day" else (at + timedelta(days=32)).replace(day=1)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
