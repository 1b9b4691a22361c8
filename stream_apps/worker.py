"""The processors: a Faust app whose agents fold whole record batches, and whose state is checkpointed beside the stream."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from faust.types import TP

from fluvial import failpoints
from fluvial.errors import CheckpointError, FluvialError
from fluvial.schemas.dead_letters import DeadLetterLimit
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.sources import RegistryUnavailableError
from fluvial.settings import KafkaSettings, WorkerSettings
from fluvial.stream_apps import outputs
from fluvial.stream_apps.checkpoints import CheckpointStore, Place
from fluvial.stream_apps.gaps import choices, made_anew
from fluvial.stream_apps.outputs import Columns, Records, Writers
from fluvial.stream_apps.plan import TopicPlan
from fluvial.stream_apps.stage import PartitionStage
from fluvial.transport.app import BatchApp, BatchTopic, batch_app
from fluvial.transport.available import FromAvailable, Gap, GapPolicy, Start
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.publisher import Delivery, Publisher

log = logging.getLogger(__name__)
_T = TypeVar("_T")

UNFINISHED_BATCHES = 8
REGISTRY_RETRY_SECONDS = 5.0
# Checkpoints become rarer than asked for rather than take more CPU time than this.
CHECKPOINT_SHARE = 0.05


@dataclass(slots=True)
class _Held:
    """A stage, who works on it, what of its output is on its way, and what its last checkpoint covers."""

    stage: PartitionStage
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    working: set[asyncio.Task[None]] = field(default_factory=set)
    unfinished: set[asyncio.Task[None]] = field(default_factory=set)
    checkpointing: asyncio.Lock = field(default_factory=asyncio.Lock)
    checkpointed: int = -1
    # Folded further than was published: no checkpoint may be made of it.
    broken: bool = False


class Worker:
    """The processors of one worker process: `app` is its Faust app."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: WorkerSettings,
        plans: Mapping[str, TopicPlan],
        decoders: Mapping[str, Decoder],
        writers: Writers,
        partitions: Mapping[str, int],
        from_available: FromAvailable | None = None,
    ) -> None:
        """Prepare a worker; nothing connects before the app starts.

        ``plans`` and ``decoders`` are by topic, ``partitions`` the partition counts of the source, rekeyed and
        checkpoint topics, ``from_available`` says after which gaps in the log to go on.
        """
        self._kafka = kafka
        self._settings = settings
        self._plans = plans
        self._decoders = decoders
        self._writers = writers
        self._partitions = partitions
        checkpoints = checkpoint_topic(settings.group)
        self._store = CheckpointStore(kafka, checkpoints, partitions[checkpoints])
        self._held: dict[TP, _Held] = {}
        self._publisher: Publisher | None = None
        self._cost, self._not_before = 0.0, 0.0
        self.assigned = asyncio.Event()
        self._pool = ThreadPoolExecutor(2, "fluvial-stage")
        self._room = asyncio.Semaphore(UNFINISHED_BATCHES)
        self.app: BatchApp = batch_app(
            settings.group,
            kafka,
            topics=[BatchTopic(t, partitions[t]) for t in plans],
            positions=self._positions,
            on_revoked=self._on_revoked,
            gaps=GapPolicy(from_available or FromAvailable(), self._on_skipped, self._choices),
            instance_id=settings.instance_id,
            web_port=settings.web_port,
            stall_seconds=settings.stall_seconds,
        )
        for topic in plans:
            self.app.agent(self.app.batch_topic(topic), name=f"fluvial.{topic}")(self._agent)
        self.app.timer(settings.checkpoint_seconds, name="fluvial.checkpoints")(self._checkpoint_all)

    @property
    def stages(self) -> dict[TP, PartitionStage]:
        """The stages of the partitions that this worker has now."""
        return {tp: h.stage for tp, h in self._held.items()}

    async def finish(self) -> None:
        """Return when everything that was handled so far has been acknowledged by Kafka."""
        for held in list(self._held.values()):
            await _finished(held)

    async def publish_open_rows(self) -> None:
        """Publish an early row of every open window: the end of a bounded run."""
        for held in list(self._held.values()):
            async with held.lock:
                made = await self._in_thread(self._open_rows, held.stage)
                for delivery in await outputs.publish(made, await self._publishing()):
                    await delivery

    async def checkpoint(self) -> None:
        """Write a checkpoint of every partition that moved since its last one: one by one, for each is a copy of its state."""
        for held in list(self._held.values()):
            await self._checkpoint(held)

    async def _agent(self, stream: Any) -> None:
        async for batch in stream:
            batch.hold()
            held = self._held.get(TP(batch.topic, batch.partition))
            if held is None:  # taken away meanwhile: whoever has it now reads it again
                continue
            await self._room.acquire()
            task = asyncio.create_task(self._handle(held, batch))
            held.working.add(task)
            task.add_done_callback(held.working.discard)

    async def _handle(self, held: _Held, batch: FetchedBatch) -> None:
        """Work on a batch whose room has been taken; partitions side by side, the batches of one in their order."""
        try:
            async with held.lock:  # first come, first served
                if held.broken or self.app.failure is not None:
                    self._room.release()
                    return
                made = await self._decoded(held.stage, batch)
                failpoints.hit("worker.between-fold-and-publish")
                deliveries = await outputs.publish(made, await self._publishing())
                task = asyncio.create_task(self._finish(batch, deliveries))
                held.unfinished.add(task)
                task.add_done_callback(held.unfinished.discard)
        except BaseException as e:
            held.broken = True
            if self._held.get(TP(batch.topic, batch.partition)) is held:
                del self._held[TP(batch.topic, batch.partition)]
            self._room.release()
            if not isinstance(e, Exception):
                raise
            await self.app.fail_stop(e)

    async def _decoded(self, stage: PartitionStage, batch: FetchedBatch) -> list[Columns | Records]:
        while True:
            try:
                made: list[Columns | Records] = await self._in_thread(self._work, stage, batch)
                return made
            except RegistryUnavailableError as e:  # raised before anything is folded
                log.warning("%s: asking again in %.0f s", e, REGISTRY_RETRY_SECONDS)
                with self.app.expected_wait("the schema registry is away"):
                    await asyncio.sleep(REGISTRY_RETRY_SECONDS)

    def _work(self, stage: PartitionStage, batch: FetchedBatch) -> list[Columns | Records]:
        if batch.next_offset <= stage.next_offset:
            return []
        return outputs.encode(stage.process(batch.columns()), stage.plan, self._writers, self._partitions)

    def _open_rows(self, stage: PartitionStage) -> list[Columns | Records]:
        return outputs.encode(stage.open_rows(), stage.plan, self._writers, self._partitions)

    async def _finish(self, batch: FetchedBatch, deliveries: list[Delivery]) -> None:
        try:
            for delivery in deliveries:
                await delivery
            failpoints.hit("worker.between-publish-and-ack")
            batch.ack()
        except FluvialError as e:
            await self.app.fail_stop(e)
        finally:
            self._room.release()

    async def _positions(self, tps: frozenset[TP]) -> Mapping[TP, Start]:
        await self._publishing()
        for tp in [tp for tp in self._held if tp not in tps]:
            del self._held[tp]
        for tp in self._held:
            self._store.renew(self._place(tp))
        new = [tp for tp in tps if tp not in self._held and tp.topic in self._plans]
        stages = {tp: self._new_stage(tp) for tp in new}
        for stage in stages.values():  # compiles what snapshots need, before a stream has to wait for it
            await asyncio.to_thread(stage.state)
        places = {tp: self._place(tp) for tp in new}
        found = await asyncio.to_thread(self._store.load, list(places.values()))
        for tp in new:
            snapshot = found.pop(places[tp], None)
            if snapshot is not None:
                self._check_identity(tp, snapshot)
                missing = await self._in_thread(stages[tp].restore, snapshot)
                for name in missing:
                    log.warning(
                        "%s[%d]: %s is new here and reads the log from its start",
                        tp.topic,
                        tp.partition,
                        name,
                    )
            self._held[tp] = _Held(stages[tp], checkpointed=stages[tp].next_offset)
            log.info(
                "%s[%d]: reading from %d (%s)",
                tp.topic,
                tp.partition,
                stages[tp].next_offset,
                "checkpoint" if snapshot else "no checkpoint",
            )
        self.assigned.set()
        needed = {tp: h.stage.required_offset for tp, h in self._held.items()}
        return {tp: Start(self._held[tp].stage.next_offset, at) for tp, at in needed.items() if at is not None}

    def _check_identity(self, tp: TP, snapshot: Mapping[str, Any]) -> None:
        was, now = snapshot.get("topic_id", ""), self.app.topic_ids.get(tp.topic, "")
        if was and now and was != now:
            raise CheckpointError(
                f"topic {tp.topic} was deleted and created again since the checkpoint of its partition {tp.partition}",
                hint=made_anew(self._settings.generation),
            )

    async def _on_skipped(self, gap: Gap) -> None:
        held = self._held[TP(gap.topic, gap.partition)]
        held.stage.skip(gap.lost, gap.first)
        await self._checkpoint(held)

    def _choices(self, gaps: Sequence[Gap]) -> str:
        newest = {tp: h.stage.newest_ms for tp, h in self._held.items()}
        return choices(gaps, {tp: ms for tp, ms in newest.items() if ms is not None}, self._settings.generation)

    async def _on_revoked(self, tps: frozenset[TP]) -> None:
        for held in [self._held[tp] for tp in tps if tp in self._held]:
            await _finished(held)
            await self._checkpoint(held)

    async def _checkpoint_all(self) -> None:
        if time.monotonic() < self._not_before:
            return
        self._cost = 0.0
        try:
            await self.checkpoint()
        except FluvialError as e:
            # A checkpoint is a cache: without a new one, recovery only takes longer.
            log.warning("no checkpoint: %s", e)
        self._not_before = time.monotonic() + self._cost / CHECKPOINT_SHARE

    async def _checkpoint(self, held: _Held) -> None:
        async with held.checkpointing:
            if held.stage.next_offset == held.checkpointed:
                return
            room, cost = await asyncio.to_thread(_timed, held.stage.room)
            async with held.lock:
                if held.broken:
                    return
                covers, since = held.stage.next_offset, time.perf_counter()
                snapshot, more = await asyncio.to_thread(_timed, held.stage.state, room)
                snapshot["topic_id"] = self.app.topic_ids.get(held.stage.plan.topic, "")
                stalled = time.perf_counter() - since
                covered = set(held.unfinished)
            if covered:
                await asyncio.wait(covered)
            if self.app.failure is not None:
                return
            place = self._place(TP(held.stage.plan.topic, held.stage.partition))
            written = await self._store.write(await self._publishing(), place, covers, snapshot)
            held.checkpointed = covers
            self._cost += cost + more + written.cpu_seconds
            log.debug(
                "%s: checkpoint at %d: %d of %d blocks, %d bytes, stalled %.0f ms", place, covers, written.changed,
                written.blocks, written.bytes, 1000 * stalled,
            )  # fmt: skip

    def _new_stage(self, tp: TP) -> PartitionStage:
        s, plan = self._settings, self._plans[tp.topic]
        return PartitionStage(
            plan,
            tp.partition,
            self._decoders[tp.topic],
            limit=DeadLetterLimit(ratio=s.dead_letter_ratio, run=s.dead_letter_run),
            max_ahead_ms=int(s.max_ahead_seconds * 1000),
            generation=s.generation,
            upstream_partitions=self._partitions[plan.upstream] if plan.upstream else 0,
        )

    def _place(self, tp: TP) -> Place:
        return Place(tp.topic, tp.partition, self._settings.generation)

    async def _publishing(self) -> Publisher:
        if self._publisher is None:
            self._publisher = await self.app.add_async_context(
                # An announcement of time must not overtake records that failed before it.
                Publisher(self._kafka, gapless=True)
            )
        return self._publisher

    async def _in_thread(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)


def checkpoint_topic(group: str) -> str:
    """Return the topic of a worker group's checkpoints."""
    return f"{group}.checkpoints"


def _timed(call: Callable[..., _T], *args: Any) -> tuple[_T, float]:
    """Return what ``call`` returns and its CPU seconds."""
    before = time.thread_time()
    return call(*args), time.thread_time() - before


async def _finished(held: _Held) -> None:
    while held.working or held.unfinished:
        await asyncio.wait({*held.working, *held.unfinished})
