"""What Kafka, the registry and Cassandra say of themselves, each asked on its own: one that is away hides no other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fluvial.errors import FluvialError
from fluvial.settings import CassandraSettings, KafkaSettings, RegistrySettings, Settings

TIMEOUT_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class TopicStatus:
    """A topic; ``records`` is what its log spans (compaction and transaction markers leave fewer)."""

    name: str
    partitions: int
    replicas: int
    under_replicated: int
    records: int


@dataclass(frozen=True)
class GroupStatus:
    """A consumer group in one topic: how many records it has still to handle."""

    group: str
    state: str
    topic: str
    lag: int


@dataclass(frozen=True)
class KafkaStatus:
    """The brokers that are up, the topics (internal ones left out) and the groups."""

    brokers: tuple[str, ...]
    topics: tuple[TopicStatus, ...]
    groups: tuple[GroupStatus, ...]


@dataclass(frozen=True)
class RegistryStatus:
    """The subjects that have schemas."""

    url: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class NodeStatus:
    """A Cassandra node as the driver sees it."""

    address: str
    datacenter: str
    version: str
    up: bool


@dataclass(frozen=True)
class TableStatus:
    """A table of the keyspace; ``mebibytes`` on disk of the node that was asked, None while nothing is."""

    name: str
    mebibytes: int | None


@dataclass(frozen=True)
class CassandraStatus:
    """The nodes, and the keyspace's tables."""

    nodes: tuple[NodeStatus, ...]
    keyspace: str
    tables: tuple[TableStatus, ...]


@dataclass(frozen=True)
class Away:
    """A service that does not answer, and why."""

    reason: str


@dataclass(frozen=True)
class Status:
    """All three."""

    kafka: KafkaStatus | Away
    registry: RegistryStatus | Away
    cassandra: CassandraStatus | Away

    @property
    def ok(self) -> bool:
        """Whether all three answer and every node is up."""
        if isinstance(self.kafka, Away) or isinstance(self.registry, Away) or isinstance(self.cassandra, Away):
            return False
        return all(n.up for n in self.cassandra.nodes)


def ask(settings: Settings) -> Status:
    """Ask all three at once."""
    # In this thread: confluent_kafka's modules import one another in a circle, which two threads must not enter at once.
    import fluvial.schemas.registry  # noqa: F401

    with ThreadPoolExecutor(3) as pool:
        kafka = pool.submit(_answer, lambda: kafka_status(settings.kafka))
        registry = pool.submit(_answer, lambda: registry_status(settings.registry))
        cassandra = pool.submit(_answer, lambda: cassandra_status(settings.cassandra))
        return Status(kafka.result(), registry.result(), cassandra.result())


def kafka_status(settings: KafkaSettings) -> KafkaStatus:
    """Ask Kafka.

    Raises:
        FluvialError: it does not answer.
    """
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec

    from fluvial.transport.connection import librdkafka_config

    admin = AdminClient(librdkafka_config(settings) | {"log_level": 0})
    try:
        metadata = admin.list_topics(timeout=TIMEOUT_SECONDS)
        topics = {name: t for name, t in sorted(metadata.topics.items()) if not name.startswith("__")}
        places = [TopicPartition(name, p) for name, t in topics.items() for p in t.partitions]
        begins = _offsets(admin, places, OffsetSpec.earliest())
        ends = _offsets(admin, places, OffsetSpec.latest())
        groups = _groups(settings, admin, begins, ends)
    except KafkaException as e:
        raise FluvialError(f"Kafka at {settings.brokers} does not answer: {e.args[0].str()}") from None
    brokers = tuple(f"{b.host}:{b.port}" for _, b in sorted(metadata.brokers.items()))
    return KafkaStatus(brokers, tuple(_topic(name, t, begins, ends) for name, t in topics.items()), groups)


def registry_status(settings: RegistrySettings) -> RegistryStatus:
    """Ask the registry.

    Raises:
        FluvialError: it does not answer.
    """
    from fluvial.schemas.registry import Registry
    from fluvial.schemas.sources import RegistryUnavailableError

    try:
        with Registry(settings, retries=0) as registry:
            subjects = registry.subjects()
    except RegistryUnavailableError as e:
        raise FluvialError(f"the registry at {settings.url} does not answer: {e.message}") from None
    return RegistryStatus(settings.url, tuple(subjects))


def cassandra_status(settings: CassandraSettings) -> CassandraStatus:
    """Ask Cassandra.

    Raises:
        FluvialError: it does not answer.
    """
    from fluvial.cassandra import connected

    keyspace = settings.keyspace
    with connected(settings, "read") as session:
        hosts = sorted(session.cluster.metadata.all_hosts(), key=lambda h: str(h.address))
        nodes = tuple(NodeStatus(h.address, h.datacenter, str(h.release_version), bool(h.is_up)) for h in hosts)
        tables = session.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", [keyspace])
        sizes = session.execute(
            "SELECT table_name, mebibytes FROM system_views.disk_usage WHERE keyspace_name = %s", [keyspace]
        )
        by_name = {row.table_name: row.mebibytes for row in sizes}
        return CassandraStatus(
            nodes, keyspace, tuple(TableStatus(row.table_name, by_name.get(row.table_name)) for row in tables)
        )


def _answer(ask_one: Callable[[], T]) -> T | Away:
    try:
        return ask_one()
    except FluvialError as e:
        return Away(e.message)


def _topic(name: str, topic: Any, begins: dict[Any, int], ends: dict[Any, int]) -> TopicStatus:
    partitions = topic.partitions.values()
    return TopicStatus(
        name,
        partitions=len(partitions),
        replicas=max((len(p.replicas) for p in partitions), default=0),
        under_replicated=sum(len(p.isrs) < len(p.replicas) for p in partitions),
        records=sum(ends[name, p.id] - begins[name, p.id] for p in partitions),
    )


def _groups(
    settings: KafkaSettings, admin: Any, begins: dict[Any, int], ends: dict[Any, int]
) -> tuple[GroupStatus, ...]:
    from fluvial.transport.committed import CommittedOffsets

    listed = admin.list_consumer_groups(request_timeout=TIMEOUT_SECONDS).result().valid
    found = []
    for group in sorted(listed, key=lambda g: str(g.group_id)):
        committed = CommittedOffsets(settings, group.group_id)
        lags: dict[str, int] = {}
        for at, offset in committed.of(ends, TIMEOUT_SECONDS).items():
            lags[at[0]] = lags.get(at[0], 0) + max(0, ends[at] - max(offset, begins[at]))
        committed.close()
        found += [
            GroupStatus(group.group_id, group.state.name.lower(), topic, lag) for topic, lag in sorted(lags.items())
        ]
    return tuple(found)


def _offsets(admin: Any, places: list[Any], spec: Any) -> dict[tuple[str, int], int]:
    if not places:
        return {}
    futures = admin.list_offsets(dict.fromkeys(places, spec), request_timeout=TIMEOUT_SECONDS)
    return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}
