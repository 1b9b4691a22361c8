"""What the topics of dead letters do with a record that comes again: which partitions there are, which timestamp it gets."""

from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from fluvial.services.dead_letters import DeadLetterError
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config

TIMEOUT_SECONDS = 30.0
# For clients of commands: warnings and worse only.
QUIET = {"log_level": 4}


@dataclass(frozen=True, slots=True)
class Facts:
    """A topic: its partitions, whether it stamps records itself (LogAppendTime), for how long it keeps them (None: ever)."""

    partitions: int
    stamps: bool
    keeps_ms: int | None

    def timestamp(self, original: int, now: int) -> int:
        """Return the timestamp (epoch ms) of a record that is sent again now: the original one, where the topic lets it.

        Kafka deletes by timestamp: a record that is older than its topic keeps could be gone before it is read.
        """
        too_old = self.keeps_ms is not None and original < now - self.keeps_ms
        return now if self.stamps or too_old or original <= 0 else original


class TopicFacts:
    """Asks Kafka for the facts of topics, once each. Blocking."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._admin = AdminClient(librdkafka_config(kafka) | QUIET)
        self._known: dict[str, Facts] = {}

    def of(self, topic: str) -> Facts:
        """Return a topic's facts.

        Raises:
            DeadLetterError: Kafka does not answer, or the topic is gone.
        """
        if topic not in self._known:
            try:
                self._known[topic] = self._ask(topic)
            except KafkaException as e:
                told = f"Kafka does not tell about topic {topic}: {e.args[0].str()}"
                raise DeadLetterError(told, hint="see `fluvial status`") from None
        return self._known[topic]

    def _ask(self, topic: str) -> Facts:
        known = self._admin.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic]
        if known.error is not None:
            raise DeadLetterError(f"topic {topic} is not there any more", hint="discard its dead letters")
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        config: Any = self._admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS)[resource].result()
        keeps = int(config["retention.ms"].value)
        deletes = "delete" in config["cleanup.policy"].value and keeps >= 0
        stamps = config["message.timestamp.type"].value == "LogAppendTime"
        return Facts(len(known.partitions), stamps, keeps if deletes else None)
