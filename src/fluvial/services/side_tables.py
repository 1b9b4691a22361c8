"""Side tables: a result table's layout under another name, made for a replay to write into, compared and dropped."""

import re
from typing import Any

from cassandra.metadata import protect_name

from fluvial.query import QueryTable
from fluvial.schemas.migrations import DDL_SECONDS
from fluvial.services.replay_records import ReplayError

_SUFFIX = re.compile(r"[a-z][a-z0-9_]*")
LONGEST_NAME = 48


def side_name(table: str, suffix: str) -> str:
    """Return a side table's name.

    Raises:
        ReplayError: Cassandra would not take it.
    """
    name = f"{table}_{suffix}"
    if not _SUFFIX.fullmatch(suffix) or len(name) > LONGEST_NAME:
        raise ReplayError(
            f"{suffix!r} cannot be the suffix of a side table of {table}",
            hint=f"small letters, digits and _, beginning with a letter, {LONGEST_NAME - len(table) - 1} at most",
        )
    return name


def exists(session: Any, keyspace: str, name: str) -> bool:
    """Return whether the keyspace has such a table."""
    session.cluster.refresh_keyspace_metadata(keyspace)
    return name in session.cluster.metadata.keyspaces[keyspace].tables


def create(session: Any, table: QueryTable, name: str) -> None:
    """Create a table of the same columns and keys; blocks. Nothing happens when it is there already."""
    found = session.cluster.metadata.keyspaces[table.keyspace].tables[table.name]
    columns = ", ".join(f"{protect_name(c.name)} {c.cql_type}" for c in found.columns.values())
    partition = ", ".join(protect_name(c.name) for c in found.partition_key)
    clustering = [(protect_name(c.name), "DESC" if c.is_reversed else "ASC") for c in found.clustering_key]
    session.execute(
        f"CREATE TABLE IF NOT EXISTS {protect_name(table.keyspace)}.{protect_name(name)} ({columns}, "
        f"PRIMARY KEY (({partition}), {', '.join(c for c, _ in clustering)})) "
        f"WITH CLUSTERING ORDER BY ({', '.join(f'{c} {order}' for c, order in clustering)}) "
        f"AND comment = 'A side table of {table.name}: fluvial compare, promote or drop it.'",
        timeout=DDL_SECONDS,
    )


def drop(session: Any, keyspace: str, name: str) -> None:
    """Drop a side table; blocks."""
    session.execute(f"DROP TABLE IF EXISTS {protect_name(keyspace)}.{protect_name(name)}", timeout=DDL_SECONDS)
