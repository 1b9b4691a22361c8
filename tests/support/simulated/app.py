"""A stand-in for `fluvial.transport.app.batch_app`: what its docstring promises, on a `FakeKafka` and a `Group`.

The acknowledgement bookkeeping is the product's (`FinishedPrefix`, `FetchedBatch`); membership, fetching and commits,
which are Faust's and aiokafka's, are played here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from faust.types import TP

from fluvial.settings import KafkaSettings
from fluvial.transport import intervals
from fluvial.transport.available import GapPolicy
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.positions import where_to_read
from support.simulated.clients import here
from support.simulated.groups import HEARTBEAT_SECONDS, FencedError, Group, NotAMemberError
from support.simulated.kafka import columns_of
from support.simulated.streams import AgentStream, Passing

COMMIT_SECONDS = 2.8
DRAIN_SECONDS = 30.0


class DrainError(Exception):
    """Handing over took longer than the limit: a worker that was paused meanwhile stops."""


class _FlowControl:
    def __init__(self, app: "FakeApp") -> None:
        self._app = app

    def is_active(self) -> bool:
        return self._app.flowing


class FakeConsumerOfApp:
    """What the sink asks its app's consumer for."""

    def __init__(self, app: "FakeApp") -> None:
        self._app = app

    @property
    def flow_active(self) -> bool:
        return self._app.flowing

    def assignment(self) -> set[TP]:
        return set(self._app.assigned)

    def pause_partitions(self, tps: Any) -> None:
        self._app.paused |= set(tps)

    def resume_partitions(self, tps: Any) -> None:
        self._app.paused -= set(tps)
        self._app.wake()


class _Conf:
    def __init__(self, group: str) -> None:
        self.id = group


class FakeApp:
    """See `batch_app`."""

    def __init__(
        self,
        group: str,
        topics: Any,
        positions: Any,
        on_revoked: Any,
        instance_id: str | None,
        buffered_batches: int,
        gaps: GapPolicy,
    ) -> None:
        self._gaps = gaps
        self._process, world = here()
        self._world = world
        self._kafka = world.kafka
        self._group: Group = world.group(group)
        self._topics = tuple(t.name for t in topics)
        self._positions: Callable[[Any], Awaitable[Mapping[TP, int]]] | None = positions
        self._on_revoked: Callable[[Any], Awaitable[None]] | None = on_revoked
        self._instance_id = instance_id
        self._buffered = buffered_batches
        self._agents: list[tuple[str, Callable[[Any], Awaitable[None]]]] = []
        self._timers: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        self._streams: dict[str, AgentStream] = {}
        self._exits = contextlib.AsyncExitStack()
        self._wake = asyncio.Event()
        #: Set it, and `run` drains and returns.
        self.stopping = asyncio.Event()
        self._name = self._process.name
        self.conf = _Conf(group)
        self.flow_control = _FlowControl(self)
        self.consumer = FakeConsumerOfApp(self)
        self.failure: BaseException | None = None
        self.topic_ids: Mapping[str, str] = {}
        self.frozen = False
        self.flowing = False
        self.rebalancing = False
        self.generation = 0
        self.assigned: tuple[TP, ...] = ()
        self.paused: set[TP] = set()
        self.prefixes: dict[TP, intervals.FinishedPrefix] = {}
        self.in_hand: set[Passing] = set()

    # --- what the product calls

    def batch_topic(self, name: str) -> str:
        return name

    def agent(self, topic: str, name: str) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            self._agents.append((topic, function))
            return function

        return register

    def timer(self, seconds: float, name: str) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            self._timers.append((seconds, function))
            return function

        return register

    @contextlib.contextmanager
    def expected_wait(self, why: str) -> Iterator[None]:
        yield

    async def fail_stop(self, error: BaseException) -> None:
        self.frozen = True
        if self.failure is None:
            self.failure = error
            self.stopping.set()

    async def add_async_context(self, context: Any) -> Any:
        return await self._exits.enter_async_context(context)

    async def run(self) -> None:
        """Work until stopped; raise what it failed of."""
        tasks = [asyncio.create_task(self._agent(topic, f)) for topic, f in self._agents]
        tasks += [asyncio.create_task(self._timer(s, f)) for s, f in self._timers]
        tasks += [asyncio.create_task(self._fetch()), asyncio.create_task(self._commits())]
        for topic in self._topics:
            self._kafka.listen(topic, self._process, self.wake)
        try:
            while not self.stopping.is_set():
                await self._belong()
            if self.failure is None:
                await self._give_back()
                await asyncio.sleep(self._kafka.latency())
                self._group.leave(self._name)
        finally:
            for task in tasks:
                task.cancel()
        if self.failure is not None:
            raise self.failure
        await self._exits.aclose()

    # --- membership

    async def _belong(self) -> None:
        """Join, work through one generation, give everything back."""
        self.rebalancing = True
        await asyncio.sleep(self._kafka.latency())
        self.generation, self.assigned = await self._group.join(self._name, self._instance_id, self._topics)
        await asyncio.sleep(self._kafka.latency())
        self._world.trace.note(f"{self._name} has {_short(self.assigned)} in generation {self.generation}")
        beating = asyncio.create_task(self._heartbeats())
        try:
            await self._place()
            self.rebalancing = False
            stopping = asyncio.create_task(self.stopping.wait())
            await asyncio.wait([beating, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        finally:
            beating.cancel()
        if not self.stopping.is_set():
            await self._give_back()

    async def _place(self) -> None:
        wanted: dict[TP, Any] = dict.fromkeys(self.assigned)
        if self._positions is None:
            wanted |= {tp: at for tp, at in self._group.committed.items() if tp in wanted}
        elif self.assigned:
            wanted |= await self._positions(Ordered(self.assigned))
        bounds = {tp: self._kafka.bounds(tp.topic, tp.partition) for tp in wanted}
        for tp, at in (await where_to_read(wanted, bounds, self._gaps, KafkaSettings())).items():
            self.prefixes[tp] = intervals.FinishedPrefix(at)
        self.paused.clear()
        self.flowing = True
        self.wake()

    async def _heartbeats(self) -> None:
        """Return when the group is to be joined again."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                if self._group.heartbeat(self._name, self.generation):
                    return
            except FencedError as e:
                await self.fail_stop(e)
            except NotAMemberError:
                self._world.trace.note(f"{self._name} is no longer a member")
                return

    async def _give_back(self) -> None:
        self.flowing = False
        if self.frozen:
            return
        self.rebalancing = True
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while any(m.prefix is self.prefixes.get(m.tp) for m in self.in_hand):
                    self._wake.clear()
                    await self._wake.wait()
                if self._on_revoked is not None and self.prefixes:
                    await self._on_revoked(Ordered(sorted(self.prefixes)))
        except TimeoutError:
            await self.fail_stop(DrainError(f"{self._name}: handing over took too long"))
            return
        except Exception as e:
            await self.fail_stop(e)
            return
        if not self.frozen:
            await self._commit()
        self.prefixes.clear()
        for stream in self._streams.values():
            stream.waiting.clear()

    # --- reading and committing

    def finish(self, message: Passing) -> None:
        if self.prefixes.get(message.tp) is message.prefix:
            message.prefix.finish(message)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def _fetch(self) -> None:
        rng = self._world.rng
        while True:
            self._wake.clear()
            await self._wake.wait()
            # What came meanwhile comes with it, as with a broker that waits for more bytes.
            await asyncio.sleep(rng.uniform(*self._world.fetch_wait))
            if not self.flowing:
                continue
            for tp in self.assigned:
                prefix = self.prefixes.get(tp)
                if prefix is None or tp in self.paused or tp.topic not in self._streams:
                    continue
                self._fetch_one(tp, prefix, rng.randint(1, self._world.fetch_most))

    def _fetch_one(self, tp: TP, prefix: intervals.FinishedPrefix, most: int) -> None:
        stream = self._streams[tp.topic]
        if len(stream.waiting) >= self._buffered:
            return
        first = prefix.delivered
        records, end = self._kafka.fetch(tp.topic, tp.partition, first, most)
        if end <= first:
            return
        batch = FetchedBatch(
            tp.topic, tp.partition, first, end, len(records), lambda: columns_of(tp.topic, tp.partition, records, end)
        )
        message = Passing(tp, batch, prefix, self.generation)
        prefix.deliver(message, end)
        stream.waiting.append(message)
        stream.filled.set()
        if end < self._kafka.topics[tp.topic][tp.partition].end:
            self.wake()

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            if self.flowing and not self.frozen:
                await self._commit()

    async def _commit(self) -> None:
        offsets = {tp: prefix.position for tp, prefix in self.prefixes.items()}
        generation = self.generation
        await asyncio.sleep(self._kafka.latency())
        with contextlib.suppress(NotAMemberError):
            self._group.commit(self._name, generation, offsets)

    # --- the product's coroutines

    async def _agent(self, topic: str, function: Callable[[Any], Awaitable[None]]) -> None:
        stream = self._streams[topic] = AgentStream(self)
        try:
            await function(stream)
        except asyncio.CancelledError:
            raise
        except Exception as e:
            await self.fail_stop(e)

    async def _timer(self, seconds: float, function: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                await function()
        except asyncio.CancelledError:
            raise
        except Exception as e:
            await self.fail_stop(e)


class Ordered(frozenset[TP]):
    """A frozen set that is walked in order: a run must not depend on the hashes of strings."""

    def __iter__(self) -> Iterator[TP]:
        return iter(sorted(super().__iter__()))


def fake_batch_app(
    group: str,
    kafka: Any,
    *,
    topics: Any,
    positions: Any = None,
    on_revoked: Any = None,
    instance_id: str | None = None,
    buffered_batches: int = 8,
    gaps: GapPolicy | None = None,
    **_: Any,
) -> FakeApp:
    """Stand in for `batch_app`."""
    return FakeApp(group, topics, positions, on_revoked, instance_id, buffered_batches, gaps or GapPolicy())


def _short(tps: tuple[TP, ...]) -> str:
    return " ".join(f"{tp.topic}[{tp.partition}]" for tp in tps) or "nothing"
