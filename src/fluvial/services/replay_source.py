"""Where a replay reads from: the topic itself, by a reader of its own that no group knows of."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Protocol

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fluvial.errors import TransportError
from fluvial.services.partitions import partition_counts
from fluvial.services.replay_plan import Source
from fluvial.services.replay_reading import Batch
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.reading import LogReader

POLL_SECONDS = 0.5
SILENCE_SECONDS = 60.0
TIMEOUT_SECONDS = 30.0
FETCH_BYTES = 2 << 20
# librdkafka tells on stderr that it forgets answers nobody waits for.
QUIET = {"log_level": 4}


class ReplaySource(Protocol):
    """A log to read stretches of, as often as needed; ``name`` tells it from others."""

    name: str

    async def __aenter__(self) -> "ReplaySource": ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    async def look(self, timestamp_ms: int) -> Source: ...
    def read(self, stretches: Mapping[int, tuple[int, int]]) -> AsyncIterator[Batch]: ...


class TopicSource:
    """A topic of Kafka, committed records only. An async context manager."""

    def __init__(self, kafka: KafkaSettings, topic: str, *, rate: float = 0) -> None:
        """Prepare; ``rate`` > 0 makes fetches so small that so many records per second come evenly."""
        self._kafka = kafka
        self._topic = self.name = topic
        fetch_bytes = FETCH_BYTES if not rate else int(min(max(rate * 16, 64 << 10), FETCH_BYTES))
        self._reader = LogReader(kafka, {topic}, partition_bytes=fetch_bytes)

    async def __aenter__(self) -> "TopicSource":
        await self._reader.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._reader.__aexit__(kind, error, traceback)

    async def look(self, timestamp_ms: int) -> Source:
        """Return the bounds of every partition, and where records of this broker timestamp and later begin.

        Raises:
            TransportError: Kafka does not answer.
        """
        count = (await asyncio.to_thread(partition_counts, self._kafka, {self._topic}))[self._topic]
        # First the look-up, so that what comes meanwhile is read rather than left out.
        since = await asyncio.to_thread(_since, self._kafka, self._topic, range(count), max(timestamp_ms, 0))
        bounds = await self._reader.bounds((self._topic, p) for p in range(count))
        return Source({p: at for (_, p), at in bounds.items()}, since)

    async def read(self, stretches: Mapping[int, tuple[int, int]]) -> AsyncIterator[Batch]:
        """Yield the batches of all stretches side by side, each partition's in offset order; the last may go on further.

        Raises:
            TransportError: Kafka does not answer, or retention was faster.
        """
        left = {p: end for p, (start, end) in stretches.items() if start < end}
        self._reader.start({(self._topic, p): stretches[p][0] for p in left})
        heard = time.monotonic()
        while left:
            found = await self._reader.fetched(POLL_SECONDS)
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_SECONDS:
                raise TransportError(
                    f"nothing came of {self._topic} for {SILENCE_SECONDS:.0f} s", hint="is Kafka up? `fluvial status`"
                )
            for batch in found:
                if batch.partition not in left:
                    continue  # fetched before its partition was left
                if batch.next_offset >= left[batch.partition]:
                    del left[batch.partition]
                    self._reader.leave((self._topic, batch.partition))
                yield batch


def _since(
    kafka: KafkaSettings, topic: str, partitions: Iterable[int], timestamp_ms: int
) -> dict[int, tuple[int, int] | None]:
    admin = AdminClient(librdkafka_config(kafka) | QUIET)
    asked = {TopicPartition(topic, p): OffsetSpec.for_timestamp(timestamp_ms) for p in partitions}
    try:
        found = {
            tp.partition: f.result() for tp, f in admin.list_offsets(asked, request_timeout=TIMEOUT_SECONDS).items()
        }
    except KafkaException as e:
        raise TransportError(
            f"Kafka at {kafka.brokers} does not answer: {e.args[0].str()}", hint="is it up? `fluvial status`"
        ) from None
    return {p: None if at.offset < 0 else (at.offset, at.timestamp) for p, at in found.items()}
