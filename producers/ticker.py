"""The ticker: tells every partition of live topics what time it is, so that idle ones go on closing their windows.

One per cluster is enough; several do no harm, since a partition's time is the greatest it was told.

Historic events that are imported into a topic with a ticker: where time is kept per key (sensors) they are aggregated
as ever, since ticks of a partition move no key's time. Where it is the partition's (posts) they are late: they belong
in a topic of their own.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from fluvial.errors import PublishError
from fluvial.producers.ticks import partition_tick
from fluvial.transport.publisher import Delivery, Publisher

DELAY_MS = 2_000
log = structlog.get_logger()


class Ticker:
    """Publishes partition ticks of (now − delay) into every partition of some topics; it never moves back."""

    def __init__(
        self,
        publisher: Publisher,
        topics: Mapping[str, int],
        *,
        tick_seconds: float,
        now_ms: Callable[[], int],
        delay_ms: int = DELAY_MS,
    ) -> None:
        """``topics`` are partition counts by topic; ``now_ms`` is the wall clock (epoch ms).

        ``delay_ms`` is how long an event may take to its partition and still be on time.
        """
        self._publisher = publisher
        self._topics = dict(topics)
        self._tick_seconds = tick_seconds
        self._now_ms = now_ms
        self._delay_ms = delay_ms
        self._last: int | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until ``stop`` is set. While Kafka does not acknowledge, no further ticks are piled up.

        Raises:
            PublishError: the producer is dead and nothing can be published any more.
        """
        while not stop.is_set():
            deliveries = await self._send()
            try:
                for delivery in deliveries:
                    await delivery
            except PublishError as e:
                log.warning("ticks were not acknowledged; the next ones make up for them", error=str(e))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._tick_seconds)

    async def _send(self) -> list[Delivery]:
        """Send one round of ticks; none when the clock has not moved on."""
        instant = self._now_ms() - self._delay_ms
        if self._last is not None and instant <= self._last:
            return []
        self._last = instant
        return [
            await self._publisher.publish_records(topic, [partition_tick(p, instant) for p in range(partitions)])
            for topic, partitions in self._topics.items()
        ]
