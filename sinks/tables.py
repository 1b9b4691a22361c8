"""A declared table as Cassandra has it: checked, and its INSERT prepared."""

from collections.abc import Sequence
from typing import Any

from cassandra import InvalidRequest
from cassandra.metadata import protect_name

from fluvial.errors import SinkError
from fluvial.schemas.declarations import Table
from fluvial.sinks.rows import Owner, TablePlan

_HINT = "`fluvial init` creates the tables and names what differs"


def plan_table(session: Any, keyspace: str, table: Table, time: str = "window_start") -> TablePlan:
    """Check a table against its declaration and prepare the INSERT of whole rows, ``USING TIMESTAMP ? [AND TTL ?]``.

    ``time`` is the first clustering column. Blocks: call it in a thread.

    Raises:
        SinkError: the table is missing, has another primary key, or a collection that is not frozen.
    """
    found = _table_metadata(session, keyspace, table.name)
    partition_key = tuple(c.name for c in found.partition_key)
    clustering = tuple(c.name for c in found.clustering_key)
    expected = (*table.partition_key, table.bucket), (time, *table.clustering)
    if (partition_key, clustering) != expected:
        raise SinkError(
            f"table {keyspace}.{table.name} has the primary key {_key(partition_key, clustering)}, "
            f"declared is {_key(*expected)}",
            hint=_HINT,
        )
    types = {c.name: c.cql_type for c in found.columns.values()}
    for name, kind in types.items():
        # Cassandra writes such a list element by element: a repeated write would append, not replace.
        if kind.startswith(("list<", "set<", "map<")):
            raise SinkError(f"column {name} of {keyspace}.{table.name} is {kind}", hint=f"declare it as frozen<{kind}>")
    expires = table.retention_days > 0
    try:
        prepared = session.prepare(_insert(keyspace, table.name, list(types), expires))
    except InvalidRequest as e:
        raise SinkError(f"cannot write to {keyspace}.{table.name}: {e}", hint=_HINT) from None
    return TablePlan(
        keyspace,
        table.name,
        prepared.query_id,
        tuple(types.items()),
        partition_key,
        clustering,
        table.bucket,
        expires,
        prepared,
    )


def replica_owner(session: Any, keyspace: str) -> Owner | None:
    """Return what tells the replicas of a routing key; None on a cluster of one node, where all have the same."""
    metadata = session.cluster.metadata
    if len(metadata.all_hosts()) < 2:
        return None

    def owner(routing_key: bytes) -> tuple[str, ...]:
        return tuple(sorted(str(host.endpoint) for host in metadata.get_replicas(keyspace, routing_key)))

    return owner


def _table_metadata(session: Any, keyspace: str, name: str) -> Any:
    spaces = session.cluster.metadata.keyspaces
    if keyspace not in spaces:
        raise SinkError(f"Cassandra has no keyspace {keyspace}", hint="`fluvial init` creates it")
    tables = spaces[keyspace].tables
    if name not in tables:
        raise SinkError(
            f"keyspace {keyspace} has no table {name}; it has {', '.join(sorted(tables)) or 'none'}", hint=_HINT
        )
    return tables[name]


def _insert(keyspace: str, table: str, columns: Sequence[str], expires: bool) -> str:
    names = ", ".join(protect_name(c) for c in columns)
    marks = ", ".join("?" for _ in columns)
    using = "USING TIMESTAMP ? AND TTL ?" if expires else "USING TIMESTAMP ?"
    return f"INSERT INTO {protect_name(keyspace)}.{protect_name(table)} ({names}) VALUES ({marks}) {using}"  # noqa: S608 — every identifier is quoted


def _key(partition_key: Sequence[str], clustering: Sequence[str]) -> str:
    return f"(({', '.join(partition_key)}), {', '.join(clustering)})"
