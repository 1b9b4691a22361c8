"""Keyspace and tables: what a pipeline's rows need, compared with what Cassandra has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluvial.errors import ProvisioningError
from fluvial.schemas.declarations import Pipeline
from fluvial.schemas.findings import Difference, Finding, verdict
from fluvial.schemas.migrations import DDL_SECONDS, CqlSession
from fluvial.settings import CassandraSettings

_CQL_TYPES = {
    "string": "text",
    "bytes": "blob",
    "boolean": "boolean",
    "int": "int",
    "long": "bigint",
    "float": "float",
    "double": "double",
}
_LOGICAL = {"timestamp-millis": "timestamp", "date": "date"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table as a pipeline's rows need it: each column's CQL type, and the keys in order."""

    name: str
    columns: Mapping[str, str]
    partition_key: tuple[str, ...]
    clustering: tuple[tuple[str, str], ...]


def table_spec(pipeline: Pipeline, rows: Mapping[str, Any]) -> TableSpec:
    """Return the table of a pipeline: a column per field of its rows' schema, and the bucket's date.

    Raises:
        ProvisioningError: a key field is not in the rows.
    """
    table = pipeline.table
    columns = {f["name"]: cql_type(f["type"]) for f in rows["fields"]}
    columns[table.bucket] = "date"
    clustering = (("window_start", "desc"), *((c, "asc") for c in table.clustering))
    for name in (*table.partition_key, *table.clustering):
        if name not in columns:
            raise ProvisioningError(
                f"table {table.name}: the key column {name} is not in the rows", hint="add it to the pipeline's key"
            )
    return TableSpec(table.name, columns, (*table.partition_key, table.bucket), clustering)


def cql_type(avro: Any) -> str:
    """Return the CQL type that holds an Avro type; nullable ones are stored as their other branch.

    Raises:
        ProvisioningError: there is none.
    """
    if isinstance(avro, list):
        rest = [b for b in avro if b != "null"]
        if len(rest) == 1:
            return cql_type(rest[0])
    elif isinstance(avro, Mapping):
        if avro.get("logicalType") in _LOGICAL:
            return _LOGICAL[avro["logicalType"]]
        if avro["type"] == "array":
            return f"frozen<list<{cql_type(avro['items'])}>>"
        if avro["type"] == "enum":
            return "text"
        if avro["type"] == "fixed":
            return "blob"
        return cql_type(avro["type"])
    elif avro in _CQL_TYPES:
        return _CQL_TYPES[avro]
    raise ProvisioningError(f"no CQL type holds the Avro type {avro}", hint="use a plain type in the event's schema")


def ensure_keyspace(session: CqlSession, cassandra: CassandraSettings) -> Finding:
    """Create the keyspace where it is missing and compare its replication otherwise."""
    name, datacenter = cassandra.keyspace, cassandra.local_datacenter
    declared = {datacenter: str(cassandra.replication_factor)}
    query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s"
    row = session.execute(query, (name,), timeout=DDL_SECONDS).one()
    if row is None:
        if not _NAME.fullmatch(name):
            raise ProvisioningError(f"{name!r} is no keyspace name", hint="use letters, digits and underscores")
        quoted = datacenter.replace("'", "''")
        # Neither names nor options can be bound; the name has been checked and the data centre is quoted.
        session.execute(
            f"CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', '{quoted}': {cassandra.replication_factor}}}",
            timeout=DDL_SECONDS,
        )
        return Finding("keyspace", name, "created")
    found = dict(row.replication)
    strategy = found.pop("class", "").rsplit(".", 1)[-1]
    differences = []
    if strategy != "NetworkTopologyStrategy":
        hint = "ALTER KEYSPACE, then repair"
        differences.append(Difference("replication class", strategy, "NetworkTopologyStrategy", hint))
    elif found.get(datacenter) != declared[datacenter]:
        hint = "ALTER KEYSPACE and repair, or set cassandra.local_datacenter and replication_factor to what is there"
        differences.append(Difference("replication", _shown(found), _shown(declared), hint))
    return verdict("keyspace", name, differences)


def verify_table(session: CqlSession, keyspace: str, spec: TableSpec) -> Finding:
    """Compare one table with what its rows need."""
    rows = session.execute(
        "SELECT column_name, type, kind, position, clustering_order FROM system_schema.columns"
        " WHERE keyspace_name = %s AND table_name = %s",
        (keyspace, spec.name),
        timeout=DDL_SECONDS,
    )
    actual = {row.column_name: row for row in rows}
    if not actual:
        hint = f"put a .cql file that creates {spec.name} beside its declaration and run `fluvial init` again"
        return verdict("table", spec.name, [Difference("table", "missing", _shown(spec.columns), hint)])
    hint = "a new migration can add columns; keys and types need a new table and a replay"
    differences = [
        Difference(f"column {name}", actual[name].type if name in actual else "missing", declared, hint)
        for name, declared in spec.columns.items()
        if name not in actual or actual[name].type != declared
    ]
    partition_key = _ordered(actual, "partition_key")
    if partition_key != spec.partition_key:
        differences.append(Difference("partition key", ", ".join(partition_key), ", ".join(spec.partition_key), hint))
    clustering = tuple((name, actual[name].clustering_order) for name in _ordered(actual, "clustering"))
    if clustering != spec.clustering:
        differences.append(Difference("clustering", _order(clustering), _order(spec.clustering), hint))
    differences += _compaction(session, keyspace, spec.name)
    return verdict("table", spec.name, differences)


def _compaction(session: CqlSession, keyspace: str, table: str) -> list[Difference]:
    row = session.execute(
        "SELECT compaction FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s",
        (keyspace, table),
        timeout=DDL_SECONDS,
    ).one()
    strategy = dict(row.compaction).get("class", "").rsplit(".", 1)[-1]
    if strategy != "TimeWindowCompactionStrategy":
        return []
    hint = "its windows are those of write timestamps, and here these are offsets: ALTER TABLE … WITH compaction"
    return [Difference("compaction", strategy, "UnifiedCompactionStrategy", hint)]


def _ordered(actual: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    return tuple(row.column_name for row in sorted(actual.values(), key=lambda r: int(r.position)) if row.kind == kind)


def _order(clustering: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name} {order}" for name, order in clustering)


def _shown(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in settings.items())
