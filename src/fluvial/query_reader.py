"""Reading what `fluvial.query` planned: tables from Cassandra's own schema, rows as Arrow."""

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from cassandra.metadata import protect_name

from fluvial.arrow_cells import arrow_array, arrow_type
from fluvial.query import Query, QueryError, QueryTable, TimeRange, buckets_of

PAGE_ROWS = 5_000
AHEAD = 16
# How far back `read_latest` looks, and how many buckets it asks for in one request.
LATEST_DAYS = 6_000
PROBED_BUCKETS = 100
KNOWN_PARTITIONS = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The service's own bookkeeping, not an analyst's.
_INTERNAL = frozenset({"schema_migrations"})
# Cassandra gives regular columns by name; these are in the order in which a row is thought of, unknown ones between.
_FIRST = (
    *("window_end", "count", "sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99"),
    *("distinct", "top", "top_counts"),
)
_LAST = ("duplicates", "final", "generation", "source_partition", "source_offset")


def describe_tables(session: Any, keyspace: str) -> list[QueryTable]:
    """Return the tables of a keyspace that can be read by key and time, by name.

    Raises:
        QueryError: there is no such keyspace.
    """
    spaces = session.cluster.metadata.keyspaces
    if keyspace not in spaces:
        raise QueryError(f"Cassandra has no keyspace {keyspace}", hint="`fluvial init` creates it")
    found = [_described(keyspace, t) for name, t in spaces[keyspace].tables.items() if name not in _INTERNAL]
    return sorted((t for t in found if t is not None), key=lambda t: t.name)


def describe_table(session: Any, keyspace: str, name: str) -> QueryTable:
    """Return one table.

    Raises:
        QueryError: there is no such table (the message lists those that exist).
    """
    tables = describe_tables(session, keyspace)
    for t in tables:
        if t.name == name:
            return t
    names = ", ".join(t.name for t in tables)
    raise QueryError(
        f"keyspace {keyspace} has no table {name}",
        hint=f"its tables are {names}" if names else "`fluvial init` creates the tables",
    )


def read(session: Any, query: Query) -> pa.Table:
    """Return the rows of a query, in its order. Buckets are read `AHEAD` at once, page by page.

    Of a long range, it is first asked which buckets there are.

    Raises:
        QueryError: Cassandra does not answer.
    """
    buckets = buckets_of(query)
    probed = _existing(session, query) if len(buckets) > 2 * PROBED_BUCKETS else buckets
    return _collected(query, _pages(session, query, probed))


def read_latest(session: Any, query: Query, count: int) -> pa.Table:
    """Return the newest ``count`` rows before the end of the query's range, walking back through the key's buckets.

    Raises:
        QueryError: Cassandra does not answer.
    """
    begin = max(query.range.end - timedelta(days=LATEST_DAYS), EPOCH)
    span = TimeRange(begin, query.range.end)
    asked = Query(query.table, query.key, span, query.columns, "newest", count)
    return _collected(asked, _pages(session, asked, _existing(session, asked)))


def known_keys(session: Any, table: QueryTable, count: int = 5) -> list[tuple[str, ...]]:
    """Return some keys that exist, for an error message; none when Cassandra does not answer."""
    names = ", ".join(protect_name(c) for c in (*(name for name, _ in table.key), table.bucket))
    where = f"{protect_name(table.keyspace)}.{protect_name(table.name)}"
    try:
        rows = session.execute(f"SELECT DISTINCT {names} FROM {where} LIMIT {KNOWN_PARTITIONS}")  # noqa: S608 — identifiers quoted
        return list(dict.fromkeys(tuple(str(v) for v in tuple(row)[:-1]) for row in rows))[:count]
    except (DriverException, NoHostAvailable):
        return []


def _described(keyspace: str, found: Any) -> QueryTable | None:
    types = {c.name: c.cql_type for c in found.columns.values()}
    key = [c.name for c in found.partition_key]
    clustering = [c.name for c in found.clustering_key]
    if not key or key[-1] not in ("day", "month") or types[key[-1]] != "date":
        return None
    if not clustering or types[clustering[0]] != "timestamp":
        return None
    bucket: Literal["day", "month"] = "day" if key[-1] == "day" else "month"
    rank = {name: i for i, name in enumerate((*key, *clustering, *_FIRST))}
    rank |= {name: len(rank) + 1 + i for i, name in enumerate(_LAST)}
    between = len(_FIRST) + len(key) + len(clustering)
    columns = sorted(types.items(), key=lambda column: rank.get(column[0], between))
    return QueryTable(
        keyspace, found.name, tuple((k, types[k]) for k in key[:-1]), bucket, clustering[0], tuple(columns)
    )


def _existing(session: Any, query: Query) -> Iterator[date]:
    """Yield those buckets of a query that have rows at all, in its order."""
    t = query.table
    keys = " AND ".join(f"{protect_name(name)} = ?" for name, _ in t.key)
    bucket = protect_name(t.bucket)
    statement = session.prepare(
        f"SELECT {bucket} FROM {protect_name(t.keyspace)}.{protect_name(t.name)} "  # noqa: S608 — identifiers quoted
        f"WHERE {keys} AND {bucket} IN ? PER PARTITION LIMIT 1"
    )
    waiting = iter(buckets_of(query))
    while probed := list(islice(waiting, PROBED_BUCKETS)):
        there = {row[0].date() for row in session.execute(statement, (*query.key, probed))}
        yield from (b for b in probed if b in there)


def _pages(session: Any, query: Query, buckets: Iterable[date]) -> Iterator[list[Any]]:
    """Yield pages of rows, bucket after bucket; the first pages of the next buckets are under way meanwhile."""
    try:
        statement = session.prepare(query.cql)
        statement.fetch_size = PAGE_ROWS
        # The driver takes a naive datetime as UTC.
        bounds = tuple(t.astimezone(UTC).replace(tzinfo=None) for t in (query.range.begin, query.range.end))
        most = query.limit or 2**31 - 1
        # `_existing` asks Cassandra itself for the next bucket.
        yield from pages_ahead(session, statement, ((*query.key, b, *bounds, most) for b in buckets), AHEAD)
    except (DriverException, NoHostAvailable) as e:
        raise QueryError(
            f"Cassandra does not answer about {query.table.name}: {type(e).__name__}: {e}",
            hint="`fluvial status` shows the nodes; a shorter range reads less",
        ) from None


def pages_ahead(session: Any, statement: Any, arguments: Iterable[tuple[Any, ...]], ahead: int) -> Iterator[list[Any]]:
    """Yield the pages of one SELECT after the other, by their arguments; ``ahead`` of them are under way meanwhile.

    Raises:
        DriverException, NoHostAvailable: Cassandra does not answer.
    """
    waiting = iter(arguments)
    asked = deque(session.execute_async(statement, a) for a in islice(waiting, ahead))
    while asked:
        rows = asked.popleft().result()
        asked.extend(session.execute_async(statement, a) for a in islice(waiting, 1))
        while True:
            yield rows.current_rows
            if not rows.has_more_pages:
                break
            rows.fetch_next_page()


def _collected(query: Query, pages: Iterator[list[Any]]) -> pa.Table:
    kinds = dict(query.table.columns)
    schema = pa.schema([(name, arrow_type(kinds[name])) for name in query.columns])
    batches, rows = [], 0
    for found in pages:
        page = found[: query.limit - rows] if query.limit else found
        if page:
            columns = zip(*page, strict=True)
            arrays = [arrow_array(c, kinds[n]) for c, n in zip(columns, query.columns, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            rows += len(page)
        if query.limit and rows >= query.limit:
            break
    return pa.Table.from_batches(batches, schema=schema)
