"""How far a consumer group is: committed offsets against the ends of its topics."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fluvial.errors import TransportError
from fluvial.settings import KafkaSettings
from fluvial.transport.committed import CommittedOffsets
from fluvial.transport.connection import librdkafka_config

TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = 0.2
_PASSING = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
)


@dataclass(frozen=True, slots=True)
class Position:
    """A group's place in one partition: ``committed`` is the next offset to handle (−1: none yet), ``end`` the log's end."""

    topic: str
    partition: int
    committed: int
    begin: int
    end: int

    @property
    def lag(self) -> int:
        """Records between the two; everything in the log when nothing is committed yet."""
        return max(self.end - max(self.committed, self.begin), 0)


class GroupProgress:
    """Asks Kafka how far groups are. Blocking: call it in a thread."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._admin = AdminClient(librdkafka_config(kafka))
        self._kafka = kafka
        self._brokers = kafka.brokers
        self._committed: dict[str, CommittedOffsets] = {}

    def positions(self, group: str, topics: Iterable[str]) -> list[Position]:
        """Return the group's position in every partition of the topics (missing topics are left out).

        Raises:
            TransportError: Kafka does not answer.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return self._positions(group, topics)
            except KafkaException as e:
                # A coordinator that has just started answers that it is loading.
                error = e.args[0]
                if error.code() not in _PASSING or time.monotonic() > deadline:
                    raise TransportError(
                        f"Kafka at {self._brokers} does not answer: {error.str()}", hint="is it up? `fluvial status`"
                    ) from None
                time.sleep(RETRY_SECONDS)

    def _positions(self, group: str, topics: Iterable[str]) -> list[Position]:
        known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        tps = [TopicPartition(t, p) for t in sorted(topics) if t in known for p in sorted(known[t].partitions)]
        if not tps:
            return []
        first, last = self._offsets(tps, OffsetSpec.earliest()), self._offsets(tps, OffsetSpec.latest())
        places = [(tp.topic, tp.partition) for tp in tps]
        if group not in self._committed:
            self._committed[group] = CommittedOffsets(self._kafka, group)
        committed = self._committed[group].of(places, TIMEOUT_SECONDS)
        return [Position(*at, committed.get(at, -1), first[at], last[at]) for at in places]

    def _offsets(self, tps: list[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        futures = self._admin.list_offsets(dict.fromkeys(tps, spec), request_timeout=TIMEOUT_SECONDS)
        return {(tp.topic, tp.partition): f.result().offset for tp, f in futures.items()}

    def lag(self, group: str, topics: Iterable[str]) -> int:
        """Return how many records the group still has to handle in the topics."""
        return sum(p.lag for p in self.positions(group, topics))
