"""Publishes a load beside the trial, and keeps the journal: what was handed over, and what Kafka acknowledged."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fluvial.errors import PublishError
from fluvial.settings import KafkaSettings
from fluvial.transport.publisher import Delivery, OutRecord, Publisher
from support.faults.load import Chunk


@dataclass
class Journal:
    """Per topic, records in the order in which they were handed over: those tried, and those acknowledged."""

    tried: dict[str, list[OutRecord]] = field(default_factory=dict)
    acknowledged: dict[str, list[OutRecord]] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many records were acknowledged."""
        return sum(map(len, self.acknowledged.values()))


class Feeder(threading.Thread):
    """Publishes chunks at their times with fluvial's own publisher; what is refused is sent again, as a producer would.

    The first chunks come at once, the others when ``go_on`` is set: so the processes are at work when the faults begin.
    """

    def __init__(self, kafka: KafkaSettings, chunks: Sequence[Chunk]) -> None:
        super().__init__(name="feeder", daemon=True)
        self._kafka = kafka
        self.chunks = chunks
        self.journal = Journal()
        self.error: BaseException | None = None
        self.refused = 0
        self.stopped = threading.Event()
        self.go_on = threading.Event()

    def run(self) -> None:
        """Publish everything, until acknowledged."""
        try:
            asyncio.run(self._feed())
        except BaseException as e:
            self.error = e

    async def _feed(self) -> None:
        begun: float | None = None
        failed: list[Chunk] = []
        async with contextlib.AsyncExitStack() as stack:
            publisher = await stack.enter_async_context(Publisher(self._kafka))
            settled: list[asyncio.Task[None]] = []
            for chunk in self.chunks:
                if self.stopped.is_set():
                    break
                if chunk.at > 0 and begun is None:
                    await asyncio.to_thread(self.go_on.wait)
                    begun = time.monotonic()
                if begun is not None:
                    await asyncio.sleep(max(0.0, begun + chunk.at - time.monotonic()))
                self.journal.tried.setdefault(chunk.topic, []).extend(chunk.records)
                delivery = await publisher.publish_records(chunk.topic, chunk.records)
                settled.append(asyncio.create_task(self._settle(chunk, delivery, failed)))
            for task in settled:
                await task
            while failed:
                self.refused += 1
                again, failed = failed, []
                await asyncio.sleep(1.0)
                for chunk in again:
                    await self._settle(chunk, await publisher.publish_records(chunk.topic, chunk.records), failed)

    async def _settle(self, chunk: Chunk, delivery: Delivery, failed: list[Chunk]) -> None:
        try:
            await delivery
        except PublishError:
            failed.append(chunk)
        else:
            self.journal.acknowledged.setdefault(chunk.topic, []).extend(chunk.records)
