"""What a consumer group has committed, asked without ending the process.

`AdminClient.list_consumer_group_offsets` reads through a null pointer when the group's coordinator answers that it is not
the one, or is loading (librdkafka issue 5040, also in 2.16): a broker that moves or starts would take every process that
asks with it. A consumer that joins nothing asks the same question, and asks again.
"""

from collections.abc import Iterable

from confluent_kafka import Consumer, TopicPartition

from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config


class CommittedOffsets:
    """The offsets of one group; blocking. It never joins the group."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._consumer = Consumer(
            librdkafka_config(kafka) | {"group.id": group, "enable.auto.commit": False, "log_level": 2}
        )

    def of(self, places: Iterable[tuple[str, int]], timeout_seconds: float) -> dict[tuple[str, int], int]:
        """Return the committed offset of each (topic, partition) that has one.

        Raises:
            KafkaException: no answer in time, or the group may not be read.
        """
        asked = [TopicPartition(*at) for at in places]
        answer = self._consumer.committed(asked, timeout_seconds) if asked else []
        return {(x.topic, x.partition): x.offset for x in answer if x.offset >= 0}

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
