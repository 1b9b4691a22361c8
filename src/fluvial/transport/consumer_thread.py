"""aiokafka in its thread: made with our options, its fetcher handing out batches, leaving the group when it stops."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, NoOffsetForPartitionError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as stock
from faust.types import TP

from fluvial.transport.fetch import read_batches

CLOSE_SECONDS = 10.0
RETRY_MS = 500


class RebalanceListener(stock.ConsumerRebalanceListener):  # type: ignore[misc]
    """Keeps aiokafka from reading a partition before its position is set.

    By itself it starts at the committed offset, which may be out of range, or not there at all, where the app's is not.
    """

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Pause the new partitions (changelogs excepted: recovery reads them first), then go on as ever."""
        await_position = [tp for tp in assigned if not self._thread.consumer._is_changelog_tp(tp)]
        self._thread._ensure_consumer().pause(*await_position)
        await super().on_partitions_assigned(assigned)


class ConsumerThread(stock.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread in which aiokafka runs."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        options = self.app.fetch_options
        consumer._isolation_level = "read_committed"
        # A position that is gone must stop the worker, not skip what was not read.
        consumer._auto_offset_reset = "none"
        consumer._max_partition_fetch_bytes = options.partition_bytes
        consumer._fetch_max_bytes = options.request_bytes
        consumer._fetch_min_bytes = options.min_bytes
        consumer._fetch_max_wait_ms = options.wait_ms
        # A join takes as long as the slowest member's drain; Faust's setting also bounds the loading of state.
        request_ms = int(1000 * (self.app.conf.broker_rebalance_timeout + 10))
        consumer._request_timeout_ms = consumer._client._request_timeout_ms = request_ms
        # Each try at a broker that is away is several lines in the log.
        consumer._retry_backoff_ms = RETRY_MS
        consumer._client._retry_backoff = RETRY_MS / 1000
        return consumer

    async def on_start(self) -> None:
        """Start aiokafka and let its fetcher hand out batches."""
        await super().on_start()
        read_batches(self._ensure_consumer()._fetcher, self.app.batch_topic_names)

    def close(self) -> None:
        """Do nothing: stopping the thread closes aiokafka, which leaves the group.

        The stock method marks it as closed, from a rebalance in the middle of a stop, so that it is never closed.
        """

    async def on_thread_stop(self) -> None:
        """Close aiokafka, which leaves the group; without its brokers, give up soon."""
        if self.app.leaves_group and self._consumer is not None:
            # A member with an instance id is never made to leave by aiokafka; the broker goes by its member id.
            self._consumer._coordinator._group_instance_id = None
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await super().on_thread_stop()
        except (asyncio.CancelledError, TimeoutError, KafkaError) as e:
            # Closing awaits tasks that it has cancelled, and those raise when they were waiting to try again.
            self.log.warning("The consumer did not leave its group: %r", e)
            await self._ensure_consumer()._client.close()

    async def stop(self) -> None:
        """Stop the thread; when it was never started, its loop is closed here, since no thread will do it."""
        await super().stop()
        if not self._thread_started.is_set():
            self.thread_loop.close()

    def _stopped_set(self) -> None:
        # After a crash the thread may have ended, and closed its loop, before it is told to stop.
        with contextlib.suppress(RuntimeError):
            super()._stopped_set()

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Return the group's committed offsets; a partition without one is left out."""
        found: dict[TP, int] = await self.call_thread(self._committed, list(tps))
        return found

    async def _committed(self, tps: list[TP]) -> dict[TP, int]:
        found = await self._ensure_consumer()._coordinator.fetch_committed_offsets(
            [stock.ensure_aiokafka_TP(tp) for tp in tps]
        )
        return {ensure_TP(tp): at.offset for tp, at in found.items() if at.offset >= 0}

    async def seek_all(self, positions: Mapping[TP, int]) -> None:
        """Seek every partition, dropping whatever is buffered of it.

        Raises:
            IllegalStateError: a partition is not assigned any more.
        """
        await self.call_thread(self._seek_all, dict(positions))

    async def _seek_all(self, positions: dict[TP, int]) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in positions.items():
            consumer.seek(stock.ensure_aiokafka_TP(tp), offset)
            consumer.resume(stock.ensure_aiokafka_TP(tp))

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 — the base's signature
        max_records: int | None = None,
    ) -> Mapping[Any, Any]:
        try:
            found: Mapping[Any, Any] = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        except NoOffsetForPartitionError:
            return {}  # aiokafka looked for a committed offset before the position was set
        return found

    async def ends(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Ask the brokers for the ends of partitions; cancelling it ends the asking.

        Not through the thread's queue of calls: a question that waits for a broker would hold up fetching.
        """
        asking = asyncio.run_coroutine_threadsafe(self._highwaters(list(tps)), self.thread_loop)
        return {ensure_TP(tp): end for tp, end in (await asyncio.wrap_future(asking)).items()}

    def highwater(self, tp: TP) -> int:
        """Return the end of what can be read now: the last stable offset."""
        end: int = self._ensure_consumer().last_stable_offset(tp)
        return end
