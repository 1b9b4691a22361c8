"""How far a consumer group is: committed offsets against the ends of its topics."""

from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fluvial.errors import TransportError
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config

TIMEOUT_SECONDS = 30.0


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
        self._brokers = kafka.brokers

    def positions(self, group: str, topics: Iterable[str]) -> list[Position]:
        """Return the group's position in every partition of the topics (missing topics are left out).

        Raises:
            TransportError: Kafka does not answer.
        """
        try:
            known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
            tps = [TopicPartition(t, p) for t in sorted(topics) if t in known for p in sorted(known[t].partitions)]
            if not tps:
                return []
            begins = self._admin.list_offsets({tp: OffsetSpec.earliest() for tp in tps}, request_timeout=TIMEOUT_SECONDS)
            ends = self._admin.list_offsets({tp: OffsetSpec.latest() for tp in tps}, request_timeout=TIMEOUT_SECONDS)
            request = [ConsumerGroupTopicPartitions(group, [TopicPartition(tp.topic, tp.partition) for tp in tps])]
            answer = self._admin.list_consumer_group_offsets(request, request_timeout=TIMEOUT_SECONDS)[group].result()
            committed = {(x.topic, x.partition): x.offset for x in answer.topic_partitions}
            at = lambda futures: {(tp.topic, tp.partition): f.result().offset for tp, f in futures.items()}  # noqa: E731
            first, last = at(begins), at(ends)
        except KafkaException as e:
            raise TransportError(f"Kafka at {self._brokers} does not answer: {e}", hint="is it up? `fluvial status`") from None
        return [
            Position(t, p, max(committed.get((t, p), -1), -1), first[t, p], last[t, p])
            for t, p in ((tp.topic, tp.partition) for tp in tps)
        ]

    def lag(self, group: str, topics: Iterable[str]) -> int:
        """Return how many records the group still has to handle in the topics."""
        return sum(p.lag for p in self.positions(group, topics))


