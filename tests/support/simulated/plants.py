"""Bugs to plant in the product, each a small, explicit mutation: the checker has to catch every one of them."""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

import fluvial.sinks.app as sinks_app
import fluvial.sinks.rows as sink_rows
import fluvial.sinks.targets as targets
import fluvial.stream_apps.worker as workers
from fluvial.records import I64
from fluvial.sinks.rows import Stamps
from fluvial.stream_apps import layout as k
from fluvial.stream_apps import outputs, rekeying
from fluvial.stream_apps.aggregation import Aggregation
from fluvial.stream_apps.stage import PartitionStage
from fluvial.stream_apps.windows import AlignedWindows, Inputs, Late, Rows
from fluvial.transport.delivery import Delivery
from fluvial.transport.intervals import FinishedPrefix
from support.simulated import aims
from support.simulated.clients import here
from support.simulated.kafka import BASE_MS
from support.simulated.plan import DAY_MS, Plan


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug: how to plant it, and what it takes to show: a run's plan, as it is or aimed at the bug, or None."""

    planted: Callable[[], AbstractContextManager[object]]
    aim: Callable[[Plan], Plan | None]


PLANTS: dict[str, Plant] = {}


def plant(aim: Callable[[Plan], Plan | bool]) -> Callable[[Callable[[], Iterator[None]]], None]:
    """Register a bug under its function's name; ``aim`` says whether a plan may show it, or returns one that may."""

    def aimed(plan: Plan) -> Plan | None:
        found = aim(plan)
        return (plan if found else None) if isinstance(found, bool) else found

    def register(function: Callable[[], Iterator[None]]) -> None:
        PLANTS[function.__name__.replace("_", " ")] = Plant(contextmanager(function), aimed)

    return register


def _now_ms() -> int:
    return BASE_MS + int(here()[0].loop.time() * 1000)


# --- the sink


@plant(aims.sinks_killed_amid_an_outage)
def commit_before_the_write() -> Iterator[None]:
    """The sink acknowledges a batch, then writes it."""
    write = sinks_app.Sink._handle

    async def handle(self: sinks_app.Sink, batch: Any) -> None:
        batch.ack()
        await write(self, batch)

    with mock.patch.object(sinks_app.Sink, "_handle", handle):
        yield


@plant(aims.always)
def wall_clock_write_timestamp() -> Iterator[None]:
    """Rows are written at the time of writing: the driver's default."""
    stamps = targets.result_stamps

    def wrong(columns: Any, retention_days: int) -> Stamps:
        right = stamps(columns, retention_days)
        return Stamps(np.full(len(right.written), _now_ms() * 1000, np.int64), right.expires_ms)

    with mock.patch.object(targets, "result_stamps", wrong):
        yield


@plant(aims.corrected)
def no_generation_in_the_timestamp() -> Iterator[None]:
    """Corrected rows do not win over what they correct."""
    stamps = targets.result_stamps

    def wrong(columns: Any, retention_days: int) -> Stamps:
        right = stamps(columns, retention_days)
        return Stamps(right.written & ((1 << sink_rows.OFFSET_BITS) - 1), right.expires_ms)

    with mock.patch.object(targets, "result_stamps", wrong):
        yield


@plant(aims.sinks_stopped_amid_an_outage)
def acknowledgement_on_exception() -> Iterator[None]:
    """The sink acknowledges in a finally: also what it gave up."""
    handle = sinks_app.Sink._handle

    async def wrong(self: sinks_app.Sink, batch: Any) -> None:
        try:
            await handle(self, batch)
        finally:
            batch.ack()

    with mock.patch.object(sinks_app.Sink, "_handle", wrong):
        yield


@plant(aims.old_rows)
def time_to_live_from_now() -> Iterator[None]:
    """Rows live for the retention from their writing on, not from their window's end: a replay raises the dead."""
    stamps = targets.result_stamps

    def wrong(columns: Any, retention_days: int) -> Stamps:
        right = stamps(columns, retention_days)
        if right.expires_ms is None:
            return right
        return Stamps(right.written, np.full(len(right.written), _now_ms() + retention_days * DAY_MS, np.int64))

    with mock.patch.object(targets, "result_stamps", wrong):
        yield


@plant(aims.always)
def last_of_a_batch_wins() -> Iterator[None]:
    """Of several rows of one key in a batch the first is kept, not the one that saw most of the log."""

    def wrong(primary: Any, written: I64) -> I64:
        groups, count = sink_rows.group(primary)
        first = np.full(count, len(groups), np.int64)
        np.minimum.at(first, groups, np.arange(len(groups)))
        return np.sort(first)

    with mock.patch.object(sink_rows, "_newest", wrong):
        yield


# --- acknowledgements


@plant(aims.sinks_killed_amid_waiting_writes)
def out_of_order_acknowledgement() -> Iterator[None]:
    """A finished delivery moves the position past those before it."""
    finish = FinishedPrefix.finish

    def wrong(self: FinishedPrefix, token: Any) -> bool:
        entry = self._unfinished.get(token)
        known = finish(self, token)
        if entry is not None:
            self.position = max(self.position, entry.end)
        return known

    with mock.patch.object(FinishedPrefix, "finish", wrong):
        yield


@plant(aims.lost_deliveries)
def dropped_delivery_report() -> Iterator[None]:
    """A worker does not wait for what Kafka says of its results."""

    wait = Delivery.__await__

    def wrong(self: Delivery) -> Generator[Any, None, None]:
        return wait(self) if here()[0].name.startswith("gateway") else asyncio.sleep(0).__await__()

    with mock.patch.object(Delivery, "__await__", wrong):
        yield


# --- the worker's state


@plant(aims.sums)
def per_batch_sums() -> Iterator[None]:
    """A batch is summed up by itself and then added: another rounding for every batching."""
    process = AlignedWindows.process

    def wrong(self: AlignedWindows, inputs: Inputs, **more: Any) -> tuple[Rows, Late]:
        used = np.flatnonzero((self.wi[:, k.W_KEY] >= 0) & (self.wi[:, k.W_COUNT] > 0))
        before = {(int(self.wi[s, k.W_KEY]), int(self.wi[s, k.W_START])): float(self.wf[s, k.F_SUM]) for s in used}
        self.wf[used, k.F_SUM] = 0.0
        rows, late = process(self, inputs, **more)
        for s in np.flatnonzero((self.wi[:, k.W_KEY] >= 0) & (self.wi[:, k.W_COUNT] > 0)):
            self.wf[s, k.F_SUM] += before.get((int(self.wi[s, k.W_KEY]), int(self.wi[s, k.W_START])), 0.0)
        for i in range(len(rows)):
            sum_before = before.get((int(rows.ints[i, k.O_KEY]), int(rows.ints[i, k.O_START])), 0.0)
            rows.doubles[i, k.V_SUM] += sum_before
            rows.doubles[i, k.V_MEAN] = rows.doubles[i, k.V_SUM] / rows.ints[i, k.O_COUNT]
        return rows, late

    with mock.patch.object(AlignedWindows, "process", wrong):
        yield


@plant(aims.restarts)
def positions_from_committed_offsets() -> Iterator[None]:
    """A worker with a checkpoint reads on from where the group has committed."""
    positions = workers.Worker._positions

    async def wrong(self: workers.Worker, tps: Any) -> Mapping[Any, int]:
        found = await positions(self, tps)
        committed = here()[1].group(self._settings.group).committed
        return {tp: committed.get(tp, start) for tp, start in found.items()}

    with mock.patch.object(workers.Worker, "_positions", wrong):
        yield


def _restored(changed: Callable[[Any, dict[str, Any]], None]) -> AbstractContextManager[object]:
    """Have windows take up a checkpoint of which something was changed."""
    restore = AlignedWindows.restore

    def wrong(self: AlignedWindows, state: Mapping[str, Any]) -> None:
        held = {name: np.array(a) for name, a in state.items()}
        changed(self, held)
        restore(self, held)

    return mock.patch.object(AlignedWindows, "restore", wrong)


@plant(aims.many_restarts)
def checkpoint_without_partition_time() -> Iterator[None]:
    """A restart does not know how far the partition's time had come."""

    def forget(_: Any, state: dict[str, Any]) -> None:
        state["st"][k.P] = k.NEG
        state["ups"][:] = k.NEG

    with _restored(forget):
        yield


@plant(aims.many_restarts)
def checkpoint_without_watermarks() -> Iterator[None]:
    """A restart does not know the keys' times and what they have closed: what is late is counted."""

    def forget(_: Any, state: dict[str, Any]) -> None:
        state["ki"][:, [k.K_TIME, k.K_CLOSED]] = k.NEG
        state["st"][k.CLOSED] = k.NEG

    with _restored(forget):
        yield


@plant(aims.many_restarts_and_repeats)
def checkpoint_without_identities() -> Iterator[None]:
    """A restart does not know which events the open windows have: repeats are counted again."""
    restore = AlignedWindows.restore

    def wrong(self: AlignedWindows, state: Mapping[str, Any]) -> None:
        restore(self, state)
        for slot in np.flatnonzero((self.wi[:, k.W_KEY] >= 0) & (self.wi[:, k.W_IDS_COUNT] > 0)):
            at, size = int(self.wi[slot, k.W_IDS]), 1 << int(self.wi[slot, k.W_IDS_CLASS])
            self.arena[at : at + size] = k.NEG
            self.wi[slot, k.W_IDS_COUNT] = 0

    with mock.patch.object(AlignedWindows, "restore", wrong):
        yield


def _moved_offsets(by: int) -> AbstractContextManager[object]:
    restore = PartitionStage.restore

    def wrong(self: PartitionStage, snapshot: Mapping[str, Any]) -> list[str]:
        missing = restore(self, snapshot)
        for c in self.components:
            c.next_offset = max(0, c.next_offset + by)
        return missing

    return mock.patch.object(PartitionStage, "restore", wrong)


@plant(aims.restarts)
def later_state_with_an_earlier_offset() -> Iterator[None]:
    """A checkpoint says that it covers less than it does: records are counted again."""
    with _moved_offsets(-2):
        yield


@plant(aims.restarts)
def earlier_state_with_a_later_offset() -> Iterator[None]:
    """A checkpoint says that it covers more than it does: records are skipped."""
    with _moved_offsets(2):
        yield


@plant(aims.restarts)
def state_not_restored() -> Iterator[None]:
    """A restart reads on from the checkpoint's offset, with empty windows."""
    with mock.patch.object(AlignedWindows, "restore"):
        yield


@plant(aims.deliveries_lost_between_checkpoints)
def checkpoint_of_what_is_not_published() -> Iterator[None]:
    """A checkpoint does not wait for the rows of what it covers."""
    finish = workers.Worker._finish
    later: set[asyncio.Task[None]] = set()

    async def wrong(self: workers.Worker, batch: Any, deliveries: Any) -> None:
        task = asyncio.create_task(finish(self, batch, deliveries))
        later.add(task)
        task.add_done_callback(later.discard)

    with mock.patch.object(workers.Worker, "_finish", wrong):
        yield


@plant(aims.corrected)
def generation_not_raised() -> Iterator[None]:
    """A corrected worker's rows carry the old generation."""
    columns = Aggregation.columns

    def wrong(self: Aggregation, rows: Rows) -> dict[str, Any]:
        self.generation = 0
        return columns(self, rows)

    with mock.patch.object(Aggregation, "columns", wrong):
        yield


@plant(aims.sink_zombie)
def row_of_a_zombie_is_not_stamped() -> Iterator[None]:
    """A sink that was paused writes its rows as of now when it goes on."""
    stamps = targets.result_stamps

    def wrong(columns: Any, retention_days: int) -> Stamps:
        right = stamps(columns, retention_days)
        if not here()[0].was_paused:
            return right
        return Stamps(np.full(len(right.written), _now_ms() * 1000, np.int64), right.expires_ms)

    with mock.patch.object(targets, "result_stamps", wrong):
        yield


@plant(aims.garbage)
def dead_letters_are_only_counted() -> Iterator[None]:
    """Bad records are counted, and published nowhere."""
    encode = outputs.encode

    def wrong(out: Any, *more: Any) -> Any:
        return encode(replace(out, dead=[]), *more)

    with mock.patch.object(outputs, "encode", wrong):
        yield


@plant(aims.always)
def late_events_are_only_counted() -> Iterator[None]:
    """Late events are counted, and published nowhere."""
    encode = outputs.encode

    def wrong(out: Any, *more: Any) -> Any:
        return encode(replace(out, late=[]), *more)

    with mock.patch.object(outputs, "encode", wrong):
        yield


@plant(aims.rekeying_restarts)
def copies_with_new_identities() -> Iterator[None]:
    """A rekeying names its copies by how often it was started: a restart's copies count again."""
    columns = rekeying.upstream_columns

    def wrong(partition: int, offset: I64, index: I64) -> dict[str, Any]:
        started = int(here()[0].name.rpartition("#")[2])
        return columns(partition, offset, index + (started - 1))

    with mock.patch.object(rekeying, "upstream_columns", wrong):
        yield
