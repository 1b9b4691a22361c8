"""Reading dead letters and the marks about them from Kafka, to their present ends."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fluvial.errors import SchemaError
from fluvial.schemas.avro import DatumReader, load_schema
from fluvial.schemas.catalog import DEAD_LETTER
from fluvial.schemas.registry import Registry
from fluvial.schemas.topics import HANDLED_TOPIC
from fluvial.services.dead_letter_topics import QUIET
from fluvial.services.dead_letters import SUFFIX, DeadLetterError, Letter, Mark, Place, place_of_key
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.messages import SILENCE_SECONDS, Bounds, read_to_end


class DeadLetterLog:
    """The dead letters of one Kafka and their marks. Blocking. ``unreadable`` counts what is none; the first is told of."""

    def __init__(self, kafka: KafkaSettings, registry: Registry) -> None:
        self._kafka = kafka
        self._admin = AdminClient(librdkafka_config(kafka) | QUIET)
        self._reader = DatumReader(load_schema(DEAD_LETTER), registry.by_id)
        self.unreadable = 0
        self.first_unreadable = ""

    def topics(self, asked: Iterable[str] = ()) -> dict[str, int]:
        """Return the topics that have a dead-letter topic (or those asked for), and that one's number of partitions.

        Raises:
            DeadLetterError: Kafka does not answer, or a topic has no dead-letter topic.
        """
        try:
            known = self._admin.list_topics(timeout=SILENCE_SECONDS).topics
        except KafkaException as e:
            told = f"cannot reach Kafka at {self._kafka.brokers}: {e.args[0].str()}"
            raise DeadLetterError(told, hint="is it up? `fluvial status`") from None
        found = {n.removesuffix(SUFFIX): len(t.partitions) for n, t in sorted(known.items()) if n.endswith(SUFFIX)}
        names = [n.removesuffix(SUFFIX) for n in asked]
        for name in names:
            if name not in found:
                have = f"topics that have one: {', '.join(found)}" if found else "run `fluvial init`"
                raise DeadLetterError(f"topic {name} has no dead-letter topic", hint=have)
        return {n: found[n] for n in names} if names else found

    def letters(
        self, topics: Mapping[str, int], upto: Bounds | None = None, seen: Bounds | None = None
    ) -> Iterator[Letter]:
        """Yield every dead letter, repeats too; those of one record key in their order.

        Notes in ``seen`` where each partition ended; given as ``upto`` later, nothing beyond it is read.

        Raises:
            DeadLetterError, TransportError: Kafka does not answer.
            RegistryUnavailableError: the registry does not.
        """
        filled = self._filled(topics)
        for topic, partitions in topics.items():
            if topic not in filled:
                continue
            for m in read_to_end(self._kafka, topic + SUFFIX, partitions, upto, seen):
                letter = self._letter(m)
                if letter is None:
                    self.unreadable += 1
                else:
                    yield letter

    def _filled(self, topics: Mapping[str, int]) -> set[str]:
        """Return the topics that have any dead letter: most have none, and asking for each would take its time."""
        places = [TopicPartition(t + SUFFIX, p) for t, n in topics.items() for p in range(n)]
        if not places:
            return set()
        try:
            first, last = (
                {(tp.topic, tp.partition): f.result().offset for tp, f in asked.items()}
                for asked in (
                    self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=SILENCE_SECONDS)
                    for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
                )
            )
        except KafkaException as e:
            told = f"Kafka does not tell where the dead-letter topics end: {e.args[0].str()}"
            raise DeadLetterError(told, hint="see `fluvial status`") from None
        return {at[0].removesuffix(SUFFIX) for at in last if last[at] > first[at]}

    def marks(self, topics: Iterable[str]) -> dict[Place, Mark]:
        """Return the newest mark of every place of some topics that has one.

        Raises:
            TransportError: Kafka does not answer.
        """
        found: dict[Place, Mark] = {}
        names = {t.encode() for t in topics}
        known = self._admin.list_topics(timeout=SILENCE_SECONDS).topics
        if HANDLED_TOPIC not in known:
            return found
        for m in read_to_end(self._kafka, HANDLED_TOPIC, len(known[HANDLED_TOPIC].partitions)):
            key = m.key() or b""
            if key.rpartition(b"[")[0] not in names:
                continue
            place, mark = place_of_key(key), parse_mark(m.value())
            if place is not None and mark is not None:
                found[place] = mark
        return found

    def _letter(self, m: Message) -> Letter | None:
        value = m.value()
        if value is None:
            return None
        try:
            d = self._reader.read(value)
        except SchemaError as e:
            self.first_unreadable = (
                self.first_unreadable or f"{m.topic()}[{m.partition()}]@{m.offset()}: {e.message[:60]}"
            )
            return None
        return Letter(
            Place(d["topic"], d["partition"], d["offset"], d["timestamp"]),
            d["key"],
            d["payload"],
            tuple((h["name"], h["value"]) for h in d["headers"]),
            d["stage"],
            d["error_type"],
            d["error_message"],
            m.timestamp()[1],
            d["payload_left_out"],
        )


def parse_mark(value: bytes | None) -> Mark | None:
    """Return the mark that a record's value is, None when it is none."""
    try:
        m: Any = json.loads(value or b"")
        return Mark(m["state"], int(m["at"]), str(m.get("reason", "")), int(m.get("times", 0)))
    except (ValueError, KeyError, TypeError):
        return None


def mark_value(mark: Mark) -> bytes:
    """Return the value of a mark's record."""
    return json.dumps({"state": mark.state, "at": mark.at, "reason": mark.reason, "times": mark.times}).encode()
