"""How far each feed is: in a compacted topic, so that any machine can take over."""

import asyncio
import json
from datetime import UTC, datetime

from fluvial.settings import KafkaSettings
from fluvial.transport.messages import read_to_end
from fluvial.transport.publisher import OutRecord, Publisher

CURSORS_TOPIC = "fluvial.feeds.cursors"


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
            TransportError: Kafka does not answer, or the topic does not exist.
        """
        return (await asyncio.to_thread(self._read)).get(name)

    def _read(self) -> dict[str, str]:
        messages = read_to_end(self._kafka, CURSORS_TOPIC, 1)
        return {(m.key() or b"").decode(): json.loads(m.value() or b"{}")["cursor"] for m in messages}
