"""Reading partitions in batches outside any group, from offsets of one's own: archives, replays, checks.

async with LogReader(settings.kafka, {"iot.readings"}) as reader:
    first, end = (await reader.bounds([("iot.readings", 3)]))["iot.readings", 3]
    reader.start({("iot.readings", 3): first})
    while first < end:
        for batch in await reader.fetched(0.5):           # a FetchedBatch
            columns = await asyncio.to_thread(batch.columns)
            first = batch.next_offset
"""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from fluvial.errors import TransportError
from fluvial.settings import KafkaSettings
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.connection import aiokafka_config
from fluvial.transport.fetch import read_batches

Place = tuple[str, int]


class PositionGoneError(TransportError):
    """The log does not have the offset that was to be read: ``place``, ``offset``."""

    def __init__(self, place: Place, offset: int) -> None:
        super().__init__(f"{place[0]}[{place[1]}] has no offset {offset} any more", hint="read its bounds again")
        self.place = place
        self.offset = offset


class LogReader:
    """Committed records of some topics, from any offsets; one event loop."""

    def __init__(self, kafka: KafkaSettings, topics: Iterable[str], *, partition_bytes: int = 4 << 20) -> None:
        """Prepare; nothing connects before the ``async with``."""
        self._topics = frozenset(topics)
        self._kafka = kafka
        self._partition_bytes = partition_bytes
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            TransportError: no broker answers.
        """
        self._consumer = AIOKafkaConsumer(
            **aiokafka_config(self._kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=self._partition_bytes,
            fetch_max_bytes=64 << 20,
            fetch_max_wait_ms=100,
            fetch_min_bytes=1,
        )
        try:
            await self._consumer.start()
        except KafkaError as e:
            await self._consumer.stop()
            raise TransportError(
                f"no answer from Kafka at {self._kafka.brokers}: {e}", hint="`fluvial status` shows whether it runs"
            ) from None
        read_batches(self._consumer._fetcher, self._topics)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._open.stop()

    async def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """Return what the log has of each partition: its first offset, and the one after the last that can be read."""
        tps = [TopicPartition(*place) for place in places]
        try:
            first, end = await self._open.beginning_offsets(tps), await self._open.end_offsets(tps)
        except KafkaError as e:
            raise TransportError(f"Kafka at {self._kafka.brokers} does not answer: {e}", hint="`fluvial status`") from e
        return {(tp.topic, tp.partition): (first[tp], end[tp]) for tp in tps}

    def start(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions, and no others, from these offsets."""
        self._open.assign([TopicPartition(*place) for place in positions])
        for place, offset in positions.items():
            self._open.seek(TopicPartition(*place), offset)

    def leave(self, place: Place) -> None:
        """Read no more of a partition."""
        self._open.pause(TopicPartition(*place))

    async def fetched(self, seconds: float) -> list[FetchedBatch]:
        """Return what has been fetched, at most one batch per partition; wait at most so long for any.

        Raises:
            PositionGoneError: retention was faster, or the topic was created anew.
            TransportError: Kafka refuses.
        """
        try:
            found = await self._open.getmany(timeout_ms=int(1000 * seconds))
        except OffsetOutOfRangeError as e:
            [(tp, offset)] = e.args[0].items()
            raise PositionGoneError((tp.topic, tp.partition), offset) from None
        except KafkaError as e:
            raise TransportError(f"reading from Kafka failed: {e!r}", hint="`fluvial status`") from e
        return [record.value for records in found.values() for record in records]

    @property
    def _open(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "used outside its `async with`"
        return self._consumer
