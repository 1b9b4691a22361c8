"""Topics: created as declared, existing ones compared with what is declared."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from fluvial.errors import ProvisioningError
from fluvial.schemas.catalog import Catalog, Role
from fluvial.schemas.findings import Difference, Finding, verdict
from fluvial.settings import KafkaSettings

HOUR_MS = 3_600_000
KEPT_ASIDE_HOURS = 30 * 24
EVENT_BYTES = 1 << 20
# A dead letter is the untouched record and its story.
WRAPPED_BYTES = 2 << 20
CHECKPOINT_BYTES = 8 << 20
# What was done about dead letters: one small record each, kept as long as the dead letters may be.
HANDLED_TOPIC = "fluvial.dead-letters.handled"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be; ``config`` holds Kafka's own names and values."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


def topic_specs(catalog: Catalog, kafka: KafkaSettings, worker_group: str) -> tuple[TopicSpec, ...]:
    """Return all topics of some declarations and the checkpoints of a worker group."""
    specs = [topic_spec(t.name, kafka, _config(t.role, kafka)) for t in catalog.topics]
    checkpoints = {
        "cleanup.policy": "compact",
        "max.message.bytes": str(CHECKPOINT_BYTES),
        # A recovery reads the whole topic: superseded checkpoints should not stay in it for long.
        "min.cleanable.dirty.ratio": "0.1",
        "segment.bytes": str(64 << 20),
        # Readers need no tombstones: what no manifest names is not used.
        "delete.retention.ms": "60000",
    }
    specs.append(topic_spec(f"{worker_group}.checkpoints", kafka, checkpoints))
    handled = topic_spec(HANDLED_TOPIC, kafka, {"cleanup.policy": "compact"})
    specs.append(replace(handled, partitions=1))
    return tuple(specs)


def ensure_topics(admin: AdminClient, specs: Sequence[TopicSpec], timeout_seconds: float = 30.0) -> list[Finding]:
    """Create the topics that are missing and compare the others. Existing topics are never altered.

    Raises:
        ProvisioningError: Kafka does not answer, or refuses to create a topic.
    """
    try:
        existing = admin.list_topics(timeout=timeout_seconds).topics
    except KafkaException as e:
        raise ProvisioningError(
            f"Kafka gives no list of topics: {_reason(e)}", hint="see that it runs and that kafka.brokers is right"
        ) from e
    missing = [s for s in specs if s.name not in existing]
    raced = _create(admin, missing, timeout_seconds) if missing else set()
    compared = [s for s in specs if s.name in existing or s.name in raced]
    if raced:
        existing = admin.list_topics(timeout=timeout_seconds).topics
    configs = _configs(admin, [s.name for s in compared], timeout_seconds)
    findings = {s.name: Finding("topic", s.name, "created") for s in missing}
    for s in compared:
        findings[s.name] = _compared(s, existing[s.name], configs[s.name])
    return [findings[s.name] for s in specs]


def topic_spec(name: str, kafka: KafkaSettings, config: Mapping[str, str]) -> TopicSpec:
    """Return a topic with the partitions and replicas of the settings."""
    insync = {"min.insync.replicas": str(kafka.min_insync_replicas)}
    return TopicSpec(name, kafka.partitions, kafka.replication_factor, {**config, **insync})


def retention_ms(hours: int) -> int:
    """Return a retention as Kafka takes it; negative hours are for ever (−1)."""
    return hours * HOUR_MS if hours >= 0 else -1


def _config(role: Role, kafka: KafkaSettings) -> dict[str, str]:
    hours = kafka.retention_hours
    if role in ("late", "dead-letter") and hours >= 0:
        hours = max(hours, KEPT_ASIDE_HOURS)
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms(hours)),
        "max.message.bytes": str(EVENT_BYTES if role not in ("late", "dead-letter") else WRAPPED_BYTES),
    }
    if role == "events":
        config["message.timestamp.type"] = "LogAppendTime"
    return config


def _create(admin: AdminClient, specs: Sequence[TopicSpec], timeout_seconds: float) -> set[str]:
    """Create topics; return the names of those that somebody else has created in the meantime."""
    new = [
        NewTopic(s.name, num_partitions=s.partitions, replication_factor=s.replication_factor, config=dict(s.config))
        for s in specs
    ]
    raced = set()
    futures: dict[str, Future[Any]] = admin.create_topics(
        new, operation_timeout=timeout_seconds, request_timeout=timeout_seconds
    )
    for name, future in futures.items():
        try:
            future.result(timeout=timeout_seconds + 5)
        except (KafkaException, TimeoutError) as e:
            if isinstance(e, KafkaException) and e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raced.add(name)
                continue
            raise ProvisioningError(
                f"Kafka did not create topic {name}: {_reason(e)}",
                hint="see kafka.partitions, kafka.replication_factor and this user's rights",
            ) from e
    return raced


def _configs(admin: AdminClient, names: Sequence[str], timeout_seconds: float) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=timeout_seconds).items():
        try:
            entries = future.result(timeout=timeout_seconds + 5)
        except (KafkaException, TimeoutError) as e:
            raise ProvisioningError(
                f"Kafka does not tell the settings of topic {resource.name}: {_reason(e)}",
                hint="see this user's rights",
            ) from e
        found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
    return found


def _compared(spec: TopicSpec, actual: Any, config: Mapping[str, str]) -> Finding:
    differences = []
    partitions = len(actual.partitions)
    if partitions != spec.partitions:
        hint = "set kafka.partitions to what is there, or make a new topic and re-publish: keys would change partitions"
        differences.append(Difference("partitions", str(partitions), str(spec.partitions), hint))
    replicas = min((len(p.replicas) for p in actual.partitions.values()), default=0)
    if replicas != spec.replication_factor:
        hint = "kafka-reassign-partitions changes the replicas of a topic"
        differences.append(Difference("replication factor", str(replicas), str(spec.replication_factor), hint))
    for name, declared in sorted(spec.config.items()):
        found = config.get(name, "unset")
        if found != declared:
            hint = f"kafka-configs --alter --topic {spec.name} --add-config {name}={declared}, or change the setting"
            differences.append(Difference(name, found, declared, hint))
    return verdict("topic", spec.name, differences)


def _reason(e: Exception) -> str:
    if isinstance(e, KafkaException):
        return str(e.args[0].str())
    return "no answer in time"
