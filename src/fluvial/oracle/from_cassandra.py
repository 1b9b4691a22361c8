"""A result table with its write timestamps, read with the plain driver, and the oracle's rows beside it."""

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fluvial.oracle.comparing import FoundRow, bits
from fluvial.oracle.records import Row
from fluvial.schemas.declarations import Pipeline

WRITETIME = "writetime"
PAGE_ROWS = 2_000
KEYS_PAGE_ROWS = 10_000
TIMEOUT_SECONDS = 60.0
# Asks the node that gets the query for its own data only. The driver has no name for it.
NODE_LOCAL = 11
Identity = tuple[Any, ...]


class TableReader:
    """Reads a result table through a session, at a consistency level, from any node or from ``host`` alone."""

    def __init__(
        self, session: Any, keyspace: str, table: str, *, consistency: int | None = None, host: Any = None
    ) -> None:
        """Look at the table's columns.

        Raises:
            LookupError: there is no such table.
        """
        described = session.cluster.metadata.keyspaces[keyspace].tables[table]
        self._session = session
        self._consistency = consistency
        self._host = host
        self.partition_key = [column.name for column in described.partition_key]
        primary = {column.name for column in described.primary_key}
        # A collection that is not frozen has a timestamp per element, and an empty one none at all.
        regular = {name: c.cql_type for name, c in described.columns.items() if name not in primary}
        self._written = [name for name, kind in regular.items() if not kind.startswith(("list<", "set<", "map<"))]
        self._columns = list(described.columns)
        # A row is written whole, so any cell tells when it expires; a null has no cell, and `final` is never null.
        lasting = "final" if "final" in self._written else self._written[0]
        times = [f'writetime("{name}")' for name in self._written]
        selected = ", ".join([f'"{name}"' for name in described.columns] + times + [f'ttl("{lasting}")'])
        where = " AND ".join(f'"{name}" = ?' for name in self.partition_key)
        self._all = f'SELECT {selected} FROM "{keyspace}"."{table}"'  # noqa: S608
        self._partition = f"{self._all} WHERE {where}"
        keys = ", ".join(f'"{name}"' for name in self.partition_key)
        self._keys = f'SELECT DISTINCT {keys} FROM "{keyspace}"."{table}"'  # noqa: S608
        self._prepared: Any = None

    def rows(self) -> Iterator[FoundRow]:
        """Yield every row."""
        return map(self._found, self._execute(self._all, None, PAGE_ROWS))

    def partitions(self) -> Iterator[Identity]:
        """Yield every partition key: its columns in order, as the driver gives them."""
        return self._execute(self._keys, None, KEYS_PAGE_ROWS)

    def partition(self, key: Identity) -> Iterator[FoundRow]:
        """Yield the rows of one partition."""
        return map(self._found, self._execute(self.prepared, key, PAGE_ROWS))

    @property
    def prepared(self) -> Any:
        """The driver's prepared statement that reads one partition."""
        if self._prepared is None:
            self._prepared = self._session.prepare(self._partition)
        return self._prepared

    def _execute(self, query: Any, parameters: Identity | None, page: int) -> Iterator[Any]:
        from cassandra.query import SimpleStatement

        statement = SimpleStatement(query) if isinstance(query, str) else query.bind(parameters)
        statement.fetch_size = page
        if self._consistency is not None:
            statement.consistency_level = self._consistency
        yield from self._session.execute(statement, timeout=TIMEOUT_SECONDS, host=self._host)

    def _found(self, row: Any) -> FoundRow:
        cells = tuple(row)
        n, w = len(self._columns), len(self._written)
        columns = dict(zip(self._columns, map(plain, cells[:n]), strict=True))
        left = cells[n + w]
        expires = None if left is None else _now_ms() + left * 1_000
        return FoundRow(columns, dict(zip(self._written, cells[n : n + w], strict=True)), expires)


def read_table(contact_points: list[str], port: int, keyspace: str, table: str) -> list[Row]:
    """Return every row of a table as a dict, times as epoch ms, with the write timestamp of `final` as ``writetime``.

    Raises:
        ValueError: two cells of one row were written at different timestamps.
    """
    from cassandra.cluster import Cluster

    cluster = Cluster(contact_points, port=port)
    try:
        return [_stamped(found) for found in TableReader(cluster.connect(), keyspace, table).rows()]
    finally:
        cluster.shutdown()


def compare(pipeline: Pipeline, oracle_rows: Iterable[Row], table_rows: Iterable[Row]) -> list[str]:
    """Return one line for every row that only one side has and for every cell that differs by a bit.

    The oracle's rows are laid over each other as Cassandra would: the greatest write timestamp wins.
    """
    wanted = as_table(pipeline, oracle_rows)
    found = {identity(pipeline, row): row for row in table_rows}
    lines = [f"missing: {_name(pipeline, i)}" for i in wanted if i not in found]
    lines += [f"not expected: {_name(pipeline, i)}" for i in found if i not in wanted]
    for i, row in wanted.items():
        other = found.get(i, row)
        for name, value in row.items():
            if name not in other:
                lines.append(f"{_name(pipeline, i)}: no column {name}")
            elif bits(value) != bits(other[name]):
                lines.append(f"{_name(pipeline, i)}: {name} is {other[name]!r}, should be {value!r}")
    return lines


def as_table(pipeline: Pipeline, rows: Iterable[Row]) -> dict[Identity, Row]:
    """Return what a table holds once these rows are written in any order: by primary key, with ``writetime``."""
    table: dict[Identity, Row] = {}
    for row in rows:
        stamped = row | {WRITETIME: row["generation"] << 44 | row["source_offset"]}
        before = table.get(identity(pipeline, row))
        if before is None or before[WRITETIME] <= stamped[WRITETIME]:
            table[identity(pipeline, row)] = stamped
    return table


def identity(pipeline: Pipeline, row: Row) -> Identity:
    """Return a row's primary key but for the bucket, which follows from the window's start."""
    table = pipeline.table
    return tuple(row[name] for name in (*table.partition_key, "window_start", *table.clustering))


def _stamped(found: FoundRow) -> Row:
    times = set(found.written.values()) - {None}
    if len(times) != 1:
        raise ValueError(f"cells of one row with write timestamps {sorted(map(str, times))}: {found.columns}")
    return {**found.columns, WRITETIME: times.pop()}


def plain(value: Any) -> Any:
    """Return a value of the driver as the oracle has it: instants in epoch ms."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return value


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _name(pipeline: Pipeline, found: Identity) -> str:
    names = (*pipeline.table.partition_key, "window_start", *pipeline.table.clustering)
    return " ".join(f"{name}={value!r}" for name, value in zip(names, found, strict=True))
