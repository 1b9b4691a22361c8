"""The worker's consumer: positions from the app, honest acknowledgements, drains with a time limit.

The private methods and attributes that are used or overridden here are held by tests/contract/test_faust_seams.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError
from faust.transport.consumer import ensure_TP, ensure_TPset
from faust.transport.drivers import aiokafka as stock
from faust.types import TP, ConsumerMessage, Message
from faust.types.tuples import ack_lock
from mode.utils.futures import notify

from fluvial.errors import FluvialError, TransportError
from fluvial.transport.available import Gap, Start
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.consumer_thread import ConsumerThread, RebalanceListener
from fluvial.transport.intervals import FinishedPrefix
from fluvial.transport.positions import LOOK_SECONDS, told, where_to_read
from fluvial.transport.watchdog import Reading

# What a drain gives the last commit: a hint for lag tools where positions come from checkpoints.
COMMIT_SECONDS = 10.0


class Consumer(stock.Consumer):  # type: ignore[misc]
    """The worker's consumer, in the app's event loop."""

    RebalanceListener = RebalanceListener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The finished prefix of every partition that was positioned since the last rebalance.
        self.prefixes: dict[TP, FinishedPrefix] = {}
        #: Messages that an agent is working on right now.
        self.in_hand: set[Message | None] = set()
        #: Set once, when nothing may be committed any more.
        self.frozen = False
        self._handed_over = True
        self._drained = False
        self._buffer_dropped = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- positions

    async def perform_seek(self) -> None:
        """Seek every assigned partition to where it must be read on; a failure stops the worker."""
        limit = 0.95 * self.app.conf.broker_request_timeout
        try:
            async with asyncio.timeout(limit):
                positions = await self.seek_to_committed()
        except IllegalStateError:
            raise  # Faust's recovery starts again: another rebalance came in between
        except TimeoutError:
            await self.app.fail_stop(
                TransportError(
                    f"finding the positions of {len(self.assignment())} partitions took more than {limit:.0f} s",
                    hint="check that the checkpoints' topic and the brokers answer",
                )
            )
            raise
        except Exception as e:
            await self.app.fail_stop(e)
            raise
        for tp, offset in positions.items():
            self._read_offset[tp] = offset
            self._committed_offset[tp] = None  # so that the position itself is committed, whatever is committed now
            self.prefixes[tp] = FinishedPrefix(offset)
        self._handed_over = self._drained = False

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the app's positions (batch topics) or the committed ones, and return them all.

        Raises:
            OffsetsGoneError: a position is older than the earliest record that is left.
        """
        assigned = self.assignment()
        if not assigned:
            return {}
        ask: Callable[[frozenset[TP]], Awaitable[Mapping[TP, int | Start]]] | None = self.app.positions
        ours = frozenset(tp for tp in assigned if ask is not None and tp.topic in self.app.batch_topic_names)
        wanted: dict[TP, int | Start] = {}
        if ask is not None and ours:
            wanted |= {ensure_TP(tp): at for tp, at in (await ask(ours)).items() if tp in ours}
        if assigned - ours:
            wanted |= await self._thread.committed(assigned - ours)
        bounds = await self._bounds(*assigned)
        positions = await where_to_read({tp: wanted.get(tp) for tp in assigned}, bounds, self.app.gaps, self.app.kafka)
        await self._thread.seek_all(positions)
        return positions

    async def seek(self, partition: TP, offset: int) -> None:
        """Seek one partition; what was delivered of it before no longer counts."""
        tp = ensure_TP(partition)
        self.prefixes[tp] = FinishedPrefix(offset)
        self._committed_offset[tp] = None
        await super().seek(tp, offset)

    # --- deliveries and acknowledgements

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        message = super()._to_message(tp, record)
        prefix = self.prefixes.get(tp)
        if prefix is not None and self.app.topics.acks_enabled_for(message.topic):
            prefix.deliver(message, message.offset + 1)
        return message

    def ack(self, message: Message) -> bool:
        """Note that every stream is done with a message."""
        with ack_lock:
            message.acked = True
            self._unacked_messages.discard(message)
            prefix = self.prefixes.get(message.tp)
            counted = prefix is not None and prefix.finish(message)
            self._n_acked += counted
        self.wake()
        return counted

    async def _wait_for_ack(self, timeout: float) -> None:  # noqa: ASYNC109 — the base's signature
        # The base swallows a cancellation here, and with it every deadline around it.
        self._waiting_for_ack = self.loop.create_future()
        try:
            await asyncio.wait([self._waiting_for_ack], timeout=timeout)
        finally:
            self._waiting_for_ack = None

    def wake(self) -> None:
        """Wake whoever waits for agents to finish."""
        notify(self._waiting_for_ack)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self.prefixes) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.prefixes[tp].position

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return bool(offset != self._committed_offset[tp])

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: a delivery covers the gap before it."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit the finished prefixes, unless the worker is failing."""
        if self.frozen:
            return False
        return bool(await super().force_commit(topics, start_new_transaction))

    # --- fetching

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 — the base's signature
        """Yield what one round of fetches brought; while the flow is stopped it is dropped, since a seek follows."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop:
            return
        for tp, record in self.scheduler.iterate(records):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            wanted = active is None or tp in active or tp in self._buffered_partitions or tp in self._paused_partitions
            if wanted and self._follows(tp, record):
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, self._to_message(tp, record)

    def _follows(self, tp: TP, record: Any) -> bool:
        """Return false for a batch that was fetched before a seek: it does not follow the last delivered one."""
        batch = record.value
        if not isinstance(batch, FetchedBatch):
            return True
        prefix = self.prefixes.get(tp)
        return prefix is not None and batch.first_offset == prefix.delivered

    def is_current(self, message: Message) -> bool:
        """Return whether a delivered message still counts: false once its partition was sought or revoked."""
        prefix = self.prefixes.get(message.tp)
        return prefix is not None and message in prefix

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP] | None]:  # noqa: ASYNC109 — as above
        if self.flow_active and not self.app.client_only and not self._get_active_partitions():
            # Every buffer is full; stock Faust sleeps a second here.
            self._buffer_dropped.clear()
            waiting = asyncio.ensure_future(self._buffer_dropped.wait())
            await self.wait_first(waiting, timeout=timeout)
            if not self._get_active_partitions():
                return None, None
        fetched: tuple[Any, set[TP] | None] = await super()._wait_next_records(timeout)
        return fetched

    def on_buffer_drop(self, tp: TP) -> None:
        """Fetch a partition again whose buffer has room."""
        super().on_buffer_drop(tp)
        self._buffer_dropped.set()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch from partitions again."""
        super().resume_partitions(tps)
        self._buffer_dropped.set()

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            await super()._drain_messages(fetcher)
        except asyncio.CancelledError:
            raise
        except self.consumer_stopped_errors:
            raise
        except OffsetOutOfRangeError as e:
            await self.app.fail_stop(await self._out_of_range(e))
        except Exception as e:  # noqa: BLE001 — whatever it is, the worker must not go on
            error = e if isinstance(e, FluvialError) else TransportError(f"reading from Kafka failed: {e!r}")
            await self.app.fail_stop(error)

    async def _bounds(self, *tps: TP) -> dict[TP, tuple[int, int]]:
        first = {ensure_TP(tp): at for tp, at in (await self.earliest_offsets(*tps)).items()}
        end = {ensure_TP(tp): at for tp, at in (await self.highwaters(*tps)).items()}
        return {tp: (first[tp], end[tp]) for tp in first}

    async def _out_of_range(self, error: OffsetOutOfRangeError) -> TransportError:
        [(at, offset)] = error.args[0].items()
        tp = ensure_TP(at)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                first, end = (await self._bounds(tp))[tp]
        except Exception as e:  # noqa: BLE001 — only completes another error's text
            self.log.warning("cannot read the bounds of %s: %r", tp, e)
            return TransportError(
                f"{tp.topic}[{tp.partition}] has no offset {offset}; its bounds could not be read",
                hint="start again: it is told then what the log has",
            )
        return await told([Gap(tp.topic, tp.partition, offset, first, end)], self.app.gaps, self.app.kafka)

    async def readings(self) -> dict[TP, Reading]:
        """Return where every positioned partition stands, asking the brokers for the ends."""
        ends: Mapping[TP, int] = {}
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(10):
                ends = await self._thread.ends(self.prefixes)
        return {
            tp: Reading(prefix.position, ends.get(tp), tp in self._paused_partitions)
            for tp, prefix in self.prefixes.items()
        }

    # --- leaving

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let agents finish, hand over, commit; then forget the partitions."""
        tps = ensure_TPset(revoked)
        self._active_partitions.difference_update(tps)
        self._paused_partitions.difference_update(tps)
        try:
            await self._on_partitions_revoked(tps)
        finally:
            for tp in tps:
                self.prefixes.pop(tp, None)
                self._read_offset.pop(tp, None)
                self._committed_offset.pop(tp, None)

    async def wait_empty(self) -> None:
        """Wait until no agent is inside an unheld event, let the app hand over its state, and commit."""
        if self.frozen or (self._drained and not self._busy()):
            return
        limit = self.app.drain_seconds
        try:
            async with asyncio.timeout(limit):
                while self._busy():
                    await self._wait_for_ack(timeout=1)
        except TimeoutError:
            stuck = ", ".join(str(m) for m in self._busy())
            self.log.error("Agents are still at %s:\n%s", stuck, self.app.agents.human_tracebacks())
            await self.app.fail_stop(
                TransportError(
                    f"agents did not finish {stuck} within {limit:.0f} s of a rebalance or shutdown",
                    hint="give every await in an agent a timeout; the tracebacks are in the log",
                )
            )
            return
        if not self._handed_over:
            self._handed_over = True
            await self._hand_over(limit)
        if not self.frozen:
            try:
                async with asyncio.timeout(COMMIT_SECONDS):
                    # A commit that is under way may not have seen what was just finished.
                    await self.maybe_wait_for_commit_to_finish()
                    await self.commit_and_end_transactions()
            except TimeoutError:
                self.log.warning("Offsets were not committed: no answer within %.0f s", COMMIT_SECONDS)
            self._drained = True

    def _busy(self) -> list[Message]:
        return [m for m in self.in_hand if m is not None and not m.acked]

    async def _hand_over(self, limit: float) -> None:
        tell: Callable[[frozenset[TP]], Awaitable[None]] | None = self.app.on_revoked
        tps = frozenset(tp for tp in self.prefixes if tp.topic in self.app.batch_topic_names)
        if tell is None or not tps:
            return
        try:
            async with asyncio.timeout(limit):
                await tell(tps)
        except TimeoutError:
            await self.app.fail_stop(
                TransportError(
                    f"handing over {len(tps)} partitions took more than {limit:.0f} s",
                    hint="check that the checkpoints' topic can be written",
                )
            )
        except Exception as e:  # noqa: BLE001 — the app's own code
            await self.app.fail_stop(e)
