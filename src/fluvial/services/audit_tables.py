"""Reading a result table for an audit: all of it or some keys, from a quorum or from every replica by itself."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from cassandra import ConsistencyLevel, DriverException, InvalidRequest
from cassandra.cluster import NoHostAvailable
from cassandra.query import SimpleStatement

from fluvial.errors import AuditError
from fluvial.oracle.comparing import FoundRow, Identity
from fluvial.oracle.from_cassandra import NODE_LOCAL, TableReader, plain
from fluvial.schemas.declarations import Pipeline
from fluvial.services.audit_recompute import Asked, Recomputed
from fluvial.settings import CassandraSettings

DAY_MS = 86_400_000
MONTH_MS = 31 * DAY_MS
PATIENCE_SECONDS = 10.0
RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class View:
    """Where a table is read: ``name`` says it to a person; ``host`` None is any node, ``alone``: surely no other one."""

    name: str
    consistency: int
    host: Any = None
    alone: bool = False


def views(session: Any, cassandra: CassandraSettings, *, consistency: str, replicas: bool) -> list[View]:
    """Return where to read: at a consistency level, or from each node of the data centre.

    A node is asked for its own data only (NODE_LOCAL) where it allows that, else at LOCAL_ONE, which it may forward.

    Raises:
        AuditError: a node is down.
    """
    if not replicas:
        return [View(consistency, ConsistencyLevel.name_to_value[consistency])]
    hosts = [h for h in session.cluster.metadata.all_hosts() if h.datacenter == cassandra.local_datacenter]
    return [_view(session, host) for host in sorted(hosts, key=lambda h: str(h.address))]


def _view(session: Any, host: Any) -> View:
    # System tables are local anyway and prove nothing: the level itself is what is asked about.
    probe = SimpleStatement("SELECT key FROM system.local", consistency_level=NODE_LOCAL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            session.execute(probe, host=host, timeout=PATIENCE_SECONDS)
            return View(str(host.address), NODE_LOCAL, host, alone=True)
        except InvalidRequest:
            return View(str(host.address), ConsistencyLevel.LOCAL_ONE, host)
        except (DriverException, NoHostAvailable) as e:
            # A new session connects to one node first, to the others in the background.
            if time.monotonic() > deadline:
                raise AuditError(
                    f"Cassandra node {host.address} does not answer: {e}",
                    hint="start it (`fluvial status` shows the nodes), or audit without --replicas",
                ) from None
            time.sleep(RETRY_SECONDS)


class Table:
    """A pipeline's table as one view shows it.

    Raises:
        AuditError: there is no such table.
    """

    def __init__(self, session: Any, keyspace: str, pipeline: Pipeline, view: View) -> None:
        self._session = session
        self._keyspace = keyspace
        self._pipeline = pipeline
        self._view = view
        try:
            self._reader = TableReader(
                session, keyspace, pipeline.table.name, consistency=view.consistency, host=view.host
            )
        except LookupError:
            raise AuditError(f"there is no table {keyspace}.{pipeline.table.name}", hint="run `fluvial init`") from None
        self._everywhere = view.host is None or self._has_all()

    def rows(self, asked: Asked, recomputed: Recomputed) -> Iterator[FoundRow]:
        """Yield the rows of the keys and windows that are asked for.

        Raises:
            AuditError: Cassandra does not answer, or not enough of its nodes.
        """
        sample, key = recomputed.sample, self._pipeline.key
        try:
            for found in self._candidates(asked, recomputed):
                if found.columns["window_start"] not in asked.span:
                    continue
                if sample is None or sample.would_hold(tuple(found.columns[name] for name in key)):
                    yield found
        except (DriverException, NoHostAvailable) as e:
            raise AuditError(
                f"{self._keyspace}.{self._pipeline.table.name} cannot be read from {self._view.name}: {e}",
                hint="`fluvial status` shows the nodes; a lower --consistency needs fewer of them",
            ) from None

    def owns(self, identity: Identity) -> bool:
        """Return whether the view's node has to have a row (any node: always)."""
        if self._view.host is None or self._everywhere:
            return True
        metadata = self._session.cluster.metadata
        replicas: list[Any] = metadata.get_replicas(self._keyspace, self._routing_key(identity))
        return self._view.host in replicas

    def _has_all(self) -> bool:
        """Return whether every node of the data centre has every row."""
        metadata, datacenter = self._session.cluster.metadata, self._view.host.datacenter
        nodes = sum(h.datacenter == datacenter for h in metadata.all_hosts())
        some = metadata.get_replicas(self._keyspace, b"any")
        return bool(sum(h.datacenter == datacenter for h in some) >= nodes)

    def _routing_key(self, identity: Identity) -> bytes:
        values = dict(zip(self._pipeline.key, identity[0], strict=True))
        values[self._pipeline.table.bucket] = bucket(identity[1], self._pipeline.table.bucket)
        key: bytes = self._reader.prepared.bind([values[name] for name in self._reader.partition_key]).routing_key
        return key

    def _candidates(self, asked: Asked, recomputed: Recomputed) -> Iterator[FoundRow]:
        if recomputed.sample is None and asked.span.begin is None and asked.span.end is None:
            yield from self._reader.rows()
            return
        for partition in self._reader.partitions():
            if self._may_hold(tuple(partition), asked, recomputed):
                yield from self._reader.partition(tuple(partition))

    def _may_hold(self, partition: tuple[Any, ...], asked: Asked, recomputed: Recomputed) -> bool:
        """Return whether rows that are asked for may be in a partition, by its key."""
        *values, day = map(plain, partition)
        length = DAY_MS if self._pipeline.table.bucket == "day" else MONTH_MS
        begin, span = day.days_from_epoch * DAY_MS, asked.span
        if (span.end is not None and begin >= span.end) or (span.begin is not None and begin + length <= span.begin):
            return False
        if recomputed.sample is None:
            return True
        named = dict(zip(self._reader.partition_key, values, strict=False))
        if set(self._pipeline.key) <= named.keys():
            return recomputed.sample.would_hold(tuple(named[name] for name in self._pipeline.key))
        shared = [name for name in self._pipeline.key if name in named]
        places = [self._pipeline.key.index(name) for name in shared]
        wanted = tuple(named[name] for name in shared)
        return any(tuple(key[i] for i in places) == wanted for key in recomputed.sample.keys)


def bucket(start_ms: int, kind: str) -> date:
    """Return the first day of the day or month (UTC) that holds an instant."""
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=start_ms)).date()
    return day if kind == "day" else day.replace(day=1)
