"""What an audit reads in Kafka, each once: a partition's records, and the topics of what was kept aside."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, Message

from fluvial.errors import AuditError
from fluvial.oracle.from_kafka import RegistryAwayError, SchemaById, parse, read_messages, registry, unframed
from fluvial.services.audit_ledger import Kept
from fluvial.services.meter import Meter
from fluvial.services.progress import Position
from fluvial.settings import Settings
from fluvial.transport.connection import librdkafka_config

Place = tuple[str, int]

# What is asked of a late event and a dead letter; the rest is skipped.
_LATE = parse(
    {
        "type": "record", "name": "LateEvent", "namespace": "fluvial",
        "fields": [
            {"name": "pipeline", "type": "string"}, {"name": "source_topic", "type": "string"},
            {"name": "source_partition", "type": "int"}, {"name": "source_offset", "type": "long"},
            {"name": "generation", "type": "int"},
        ],
    }
)  # fmt: skip
_DEAD = parse(
    {
        "type": "record", "name": "DeadLetter", "namespace": "fluvial",
        "fields": [
            {"name": "payload", "type": ["null", "bytes"], "default": None}, {"name": "topic", "type": "string"},
            {"name": "partition", "type": "int"}, {"name": "offset", "type": "long"}, {"name": "stage", "type": "string"},
        ],
    }
)  # fmt: skip


@dataclass(slots=True)
class Aside:
    """The different records of a topic of late events or dead letters: their source offsets, by what they belong to."""

    topic: str
    cut: bool
    offsets: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))

    def kept(self, name: str, partition: int, covered: int, *, shared: bool = False) -> Kept:
        """Return how many of them lie before ``covered``; see `Kept`."""
        return Kept(self.topic, sum(o < covered for o in self.offsets.get((name, partition), ())), self.cut, shared)


class LogReader:
    """Reads topics for an audit; what Kafka or the registry do not answer ends it."""

    def __init__(self, settings: Settings) -> None:
        r = settings.registry
        password = r.password.get_secret_value() if r.password else ""
        self._connection: Mapping[str, Any] = librdkafka_config(settings.kafka)
        self.schemas: SchemaById = registry(r.url, None if r.username is None else (r.username, password))

    def messages(self, topic: str, partition: int, begin: int, until: int) -> Iterator[Message]:
        """Yield the records of a stretch of a partition.

        Raises:
            AuditError: Kafka does not answer.
        """
        if begin >= until:
            return
        try:
            yield from read_messages(self._connection, topic, partition, begin=begin, until=until)
        except KafkaException as e:
            raise AuditError(
                f"{topic}[{partition}] cannot be read: {e.args[0].str()}", hint="is Kafka up? `fluvial status`"
            ) from None

    def count(self, topic: str, partition: int, begin: int, until: int, meter: Meter) -> int:
        """Return how many records a stretch of a partition has; the meter counts offsets."""
        n, last = 0, begin
        for message in self.messages(topic, partition, begin, until):
            n += 1
            if not n & 0xFFF:
                meter.add(message.offset() - last)
                last = message.offset()
        meter.add(max(until - last, 0))
        return n

    def late(self, topic: str, positions: list[Position], generation: int, meter: Meter) -> Aside:
        """Return the late events of a generation, by pipeline and source partition."""
        aside = Aside(topic, any(p.begin > 0 for p in positions))
        for position in positions:
            for message in self.messages(position.topic, position.partition, position.begin, position.end):
                meter.add()
                late = self._decoded(message.value(), _LATE)
                if late is not None and late["generation"] == generation:
                    aside.offsets[late["pipeline"], late["source_partition"]].add(late["source_offset"])
        return aside

    def dead_letters(self, topic: str, positions: list[Position], meter: Meter) -> Aside:
        """Return the workers' dead letters, by the topic and partition that they come from: repeats count once.

        What a sink of raw events could not write is not among them: the worker has counted it as an event.
        """
        aside = Aside(topic, any(p.begin > 0 for p in positions))
        for position in positions:
            for message in self.messages(position.topic, position.partition, position.begin, position.end):
                meter.add()
                dead = self._decoded(message.value(), _DEAD)
                if dead is not None and dead["stage"] not in ("process", "write"):
                    aside.offsets[dead["topic"], dead["partition"]].add(dead["offset"])
        return aside

    def rows(self, positions: list[Position], schema: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the result rows between each position's ``begin`` and ``end``, with the schema's fields."""
        for position in positions:
            for message in self.messages(position.topic, position.partition, position.begin, position.end):
                row = self._decoded(message.value(), schema)
                if row is not None:
                    yield row

    def dead_rows(self, positions: list[Position], schema: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the result rows in a result topic's dead letters, as far as they are rows."""
        for position in positions:
            for message in self.messages(position.topic, position.partition, position.begin, position.end):
                dead = self._decoded(message.value(), _DEAD)
                row = self._decoded(dead["payload"], schema) if dead else None
                if row is not None:
                    yield row

    def _decoded(self, value: bytes | None, reader: Any) -> Mapping[str, Any] | None:
        if value is None:
            return None
        try:
            return unframed(value, self.schemas, reader)
        except RegistryAwayError as e:
            raise AuditError(str(e), hint="is the registry up? `fluvial status`") from None
        except Exception:  # noqa: BLE001 (not a record of this kind: somebody else's)
            return None
