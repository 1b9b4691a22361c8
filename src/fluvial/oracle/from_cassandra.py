"""A whole result table with its write timestamps, read with the plain driver, and the oracle's rows beside it."""

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from fluvial.oracle.records import Row
from fluvial.schemas.declarations import Pipeline

WRITETIME = "writetime"
Identity = tuple[Any, ...]


def read_table(contact_points: list[str], port: int, keyspace: str, table: str) -> list[Row]:
    """Return every row of a table as a dict, times as epoch ms, with the write timestamp of `final` as ``writetime``.

    Raises:
        ValueError: two cells of one row were written at different timestamps.
    """
    from cassandra.cluster import Cluster
    from cassandra.query import SimpleStatement, dict_factory

    cluster = Cluster(contact_points, port=port)
    try:
        session = cluster.connect()
        session.row_factory = dict_factory
        described = cluster.metadata.keyspaces[keyspace].tables[table]
        primary = {column.name for column in described.primary_key}
        # A collection has a timestamp per element, and an empty one none at all.
        regular = {name: c.cql_type for name, c in described.columns.items() if name not in primary}
        written = [name for name, kind in regular.items() if not kind.startswith(("list<", "set<", "map<"))]
        times = [f'writetime("{name}") AS "writetime_{i}"' for i, name in enumerate(written)]
        selected = ", ".join([f'"{name}"' for name in described.columns] + times)
        statement = SimpleStatement(f'SELECT {selected} FROM "{keyspace}"."{table}"', fetch_size=2_000)  # noqa: S608
        return [_table_row(found, len(written)) for found in session.execute(statement, timeout=60)]
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
            elif _bits(value) != _bits(other[name]):
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


def _table_row(found: dict[str, Any], written: int) -> Row:
    times = {found.pop(f"writetime_{i}") for i in range(written)} - {None}
    if len(times) != 1:
        raise ValueError(f"cells of one row with write timestamps {sorted(times)}: {found}")
    return {name: _plain(value) for name, value in found.items()} | {WRITETIME: times.pop()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return value


def _bits(value: Any) -> Any:
    """Return what equal cells have in common: a double's bits, every NaN alike, an empty list like null."""
    if isinstance(value, float):
        return "NaN" if value != value else struct.pack(">d", value)
    if isinstance(value, list | tuple):
        return [_bits(item) for item in value] or None
    return value


def _name(pipeline: Pipeline, found: Identity) -> str:
    names = (*pipeline.table.partition_key, "window_start", *pipeline.table.clustering)
    return " ".join(f"{name}={value!r}" for name, value in zip(names, found, strict=True))
