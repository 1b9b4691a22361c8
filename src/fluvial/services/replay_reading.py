"""Reading a replay's stretches of the log and folding them: partitions side by side, each in its order."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fluvial.records import RecordColumns
from fluvial.schemas.dead_letters import DeadLetterLimit
from fluvial.schemas.decoder import Decoder
from fluvial.services.replay_plan import ReplayPlan
from fluvial.settings import WorkerSettings
from fluvial.stream_apps.aggregation import StageBatch
from fluvial.stream_apps.replay_across import AcrossPartitions
from fluvial.stream_apps.replay_rules import below
from fluvial.stream_apps.replaying import ALL_PARTITIONS, Made, Part, new_replay
from fluvial.stream_apps.validation import sort_records

AHEAD = 2
REPORT_SECONDS = 0.5


class Batch(Protocol):
    """Some records of one partition, to be parsed by whoever works on them."""

    @property
    def partition(self) -> int: ...
    @property
    def first_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    def columns(self) -> RecordColumns: ...


# Yields the batches of the given stretches, each partition's in offset order.
Read = Callable[[Mapping[int, tuple[int, int]]], AsyncIterator[Batch]]


@dataclass(frozen=True, slots=True)
class Folding:
    """What each partition's batches are folded into, and what the rows come from then, by source partition."""

    parts: Mapping[int, Part]
    made: Mapping[int, Made]


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """How far reading is: ``done`` of ``total`` offsets, at ``per_second``."""

    done: int
    total: int
    per_second: float

    @property
    def eta_seconds(self) -> float:
        """How long the rest takes at this rate."""
        return (self.total - self.done) / self.per_second if self.per_second else float("inf")


class Throttle:
    """Lets at most ``rate`` records per second through, on average (0: all)."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = 0.0

    def wait_seconds(self, records: int) -> float:
        """Return how long to wait before the next batch, after one of so many records."""
        if not self._rate:
            return 0.0
        now = self._clock()
        self._free_at = max(self._free_at, now) + records / self._rate
        return self._free_at - now


class PartitionReader:
    """Decodes and sorts the records of one partition, and counts the bad ones."""

    def __init__(self, plan: ReplayPlan, decoder: Decoder, worker: WorkerSettings, upstream_partitions: int) -> None:
        self._plan = plan
        self._decoder = decoder
        self._max_ahead_ms = int(worker.max_ahead_seconds * 1000)
        self._upstream_partitions = upstream_partitions
        self._limit = DeadLetterLimit(ratio=worker.dead_letter_ratio, run=worker.dead_letter_run)
        self.bad = 0

    def sort(self, records: RecordColumns) -> StageBatch | None:
        """Return the usable records; they are bad, late or good exactly as in a worker.

        Raises:
            DeadLetterLimitError: too many are bad.
        """
        if not len(records):
            return None
        topic = self._plan.topic
        batch, _, errors = sort_records(
            records, self._decoder.decode(records), topic.pipelines,
            event_time=topic.event_time, max_ahead_ms=self._max_ahead_ms, upstream_partitions=self._upstream_partitions,
        )  # fmt: skip
        self.bad += len(errors)
        self._limit.note(records.topic, records.partition, len(records), np.array([e.row for e in errors], np.int64))
        return batch


class RangeReader:
    """Reads what a plan says into the parts of a `Folding`."""

    def __init__(
        self,
        plan: ReplayPlan,
        readers: Mapping[int, PartitionReader],
        parts: Mapping[int, Part],
        *,
        workers: int,
        rate: float,
        report: Callable[[ReadProgress], None],
    ) -> None:
        self._plan = plan
        self._readers = readers
        self._parts = parts
        self._workers = workers
        self._throttle = Throttle(rate)
        self._report = report
        self._done = self._total = 0
        self._begun = self._told = 0.0

    async def read(self, read: Read) -> None:
        """Read everything once, and again what late events make necessary."""
        stretches = {p: s for p, s in self._plan.stretches.items() if p in self._parts}
        self._total = sum(end - start for start, end in stretches.values())
        self._begun = time.monotonic()
        if self._plan.across_partitions:
            for p, stretch in sorted(stretches.items()):
                await self._pass(read, {p: stretch}, self._fold)
        else:
            await self._pass(read, stretches, self._fold)
        again = {p: s for p, r in self._parts.items() if (s := r.again()) is not None}
        self._total += sum(end - start for start, end in again.values())
        await self._pass(read, again, self._fold_again)
        self._tell(last=True)

    async def _pass(
        self, read: Read, stretches: Mapping[int, tuple[int, int]], fold: Callable[[int, Batch, int], None]
    ) -> None:
        """Work on batches in threads; those of one partition one after the other."""
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(AHEAD * self._workers)
        latest: dict[int, asyncio.Task[None]] = {}

        async def work(before: "asyncio.Task[None] | None", batch: Batch) -> None:
            try:
                if before is not None:
                    await before
                await loop.run_in_executor(pool, fold, batch.partition, batch, stretches[batch.partition][1])
            finally:
                room.release()
            self._tell()

        with ThreadPoolExecutor(self._workers, "fluvial-replay") as pool:
            async with asyncio.TaskGroup() as group:
                async for batch in read(stretches):
                    await room.acquire()
                    p = batch.partition
                    latest[p] = group.create_task(work(latest.get(p), batch))
                    records = min(batch.next_offset, stretches[p][1]) - batch.first_offset
                    self._done += records
                    wait = self._throttle.wait_seconds(records)
                    if wait > 0:
                        await asyncio.sleep(wait)

    def _fold(self, partition: int, batch: Batch, end: int) -> None:
        found = self._readers[partition].sort(below(batch.columns(), end))
        if found is not None:
            self._parts[partition].process(found)

    def _fold_again(self, partition: int, batch: Batch, end: int) -> None:
        before = self._readers[partition].bad
        found = self._readers[partition].sort(below(batch.columns(), end))
        self._readers[partition].bad = before
        if found is not None:
            self._parts[partition].process_again(found)

    def _tell(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._told >= REPORT_SECONDS:
            self._told = now
            took = max(now - self._begun, 1e-9)
            self._report(ReadProgress(self._done, self._total, self._done / took))


def folding_of(plan: ReplayPlan, partitions: frozenset[int], upstream_partitions: int) -> Folding:
    """Return fresh replays for the given partitions, or one for all of them."""
    p, span = plan.pipeline, plan.span
    if plan.across_partitions:
        ends = {n: end for n, (_, end) in plan.stretches.items()}
        whole = AcrossPartitions(p, span, ends, upstream_partitions=upstream_partitions)
        return Folding({n: whole.partition(n) for n in ends}, {ALL_PARTITIONS: whole})
    replays = {
        n: new_replay(p, n, span, plan.lateness, end=end, upstream_partitions=upstream_partitions)
        for n, (_, end) in plan.stretches.items()
        if n in partitions
    }
    return Folding(replays, replays)
