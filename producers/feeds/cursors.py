"""How far each feed is: in a compacted topic, so that any machine can take over."""

import asyncio
import json
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fluvial.errors import FluvialError
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import OutRecord, Publisher

CURSORS_TOPIC = "fluvial.feeds.cursors"
READ_TIMEOUT_SECONDS = 30.0


class CursorError(FluvialError):
    """The cursors cannot be read."""


class Cursors:
    """The newest cursor of every feed, by the feed's name."""

    def __init__(self, kafka: KafkaSettings, publisher: Publisher) -> None:
        self._kafka = kafka
        self._publisher = publisher

    async def write(self, name: str, cursor: str) -> None:
        """Return once Kafka has acknowledged it.

        Raises:
            PublishError: it has not.
        """
        value = {"cursor": cursor, "written": datetime.now(UTC).isoformat(timespec="milliseconds")}
        record = OutRecord(name.encode(), json.dumps(value).encode(), partition=0)
        await (await self._publisher.publish_records(CURSORS_TOPIC, [record]))

    async def read(self, name: str) -> str | None:
        """Return a feed's newest cursor, or None when it never had one.

        Raises:
            CursorError: Kafka does not answer, or the topic does not exist.
        """
        return (await asyncio.to_thread(self._read)).get(name)

    def _read(self) -> dict[str, str]:
        config = librdkafka_config(self._kafka) | {
            "group.id": "fluvial-feeds", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }  # fmt: skip
        consumer = Consumer(config)
        found: dict[str, str] = {}
        try:
            consumer.assign([TopicPartition(CURSORS_TOPIC, 0, 0)])
            while True:
                message = consumer.poll(READ_TIMEOUT_SECONDS)
                if message is None:
                    raise CursorError(f"{CURSORS_TOPIC} does not answer", hint="is Kafka up? `fluvial status`")
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return found
                    raise CursorError(f"cannot read {CURSORS_TOPIC}: {error.str()}", hint="run `fluvial init`")
                found[(message.key() or b"").decode()] = json.loads(message.value() or b"{}")["cursor"]
        except KafkaException as e:
            raise CursorError(f"cannot read {CURSORS_TOPIC}: {e}", hint="run `fluvial init`") from e
        finally:
            consumer.close()
