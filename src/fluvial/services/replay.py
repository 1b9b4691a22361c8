"""A replay from beginning to end: plan, read, compare with what is in the table, write what differs, wait for the sink."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from fluvial.cassandra import close, connect
from fluvial.cluster.progress import Report, Step, silent
from fluvial.query import QueryTable
from fluvial.query_reader import describe_table
from fluvial.records import Column
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services import side_tables
from fluvial.services.partitions import partition_counts
from fluvial.services.replay_plan import (
    ReplayPlan,
    ReplayRequest,
    as_iso,
    earliest_timestamp,
    fingerprint,
    pipeline_and_topic,
    plan_replay,
)
from fluvial.services.replay_reading import PartitionReader, RangeReader, Read, ReadProgress, replays_of
from fluvial.services.replay_records import DONE, READING, WRITING, ReplayError, ReplayRecord, ReplayRecords
from fluvial.services.replay_source import ReplaySource, TopicSource
from fluvial.services.replay_writing import (
    Destination,
    ResultTopic,
    SideTable,
    SinkProgress,
    ends_of,
    sink_has_written,
)
from fluvial.services.table_rows import differences, primary_key, produced, read_rows
from fluvial.settings import Settings
from fluvial.stream_apps.replay_rules import Span, widened
from fluvial.stream_apps.replaying import Counts, Replay
from fluvial.transport.publisher import Publisher

SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay did (or, dry, would do). ``earlier`` rows were written before it was interrupted.

    ``kept`` are final rows of the range that it did not make: they stay as they are; ``kept_keys`` names some.
    ``in_table`` is None where nothing had to go through the sink, and false where the sink has not written the rows.
    """

    plan: ReplayPlan
    generation: int
    destination: str
    records: int
    seconds: float
    counts: Counts
    bad_records: int
    changed: int
    added: int
    unchanged: int
    earlier: int
    kept: int
    kept_keys: tuple[str, ...]
    in_table: bool | None


@dataclass(slots=True)
class _Tally:
    changed: int = 0
    added: int = 0
    unchanged: int = 0
    earlier: int = 0


class ReplayRun:
    """One run of `fluvial replay`. ``tell`` gets the plan before anything is read, ``report`` the progress."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        request: ReplayRequest,
        *,
        report: Report = silent,
        tell: Callable[[ReplayPlan], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._request = request
        self._report = report
        self._tell = tell
        self._pipeline, self._topic = pipeline_and_topic(settings, catalog, request.pipeline)
        self._side = side_tables.side_name(self._pipeline.table.name, request.into) if request.into else ""
        self._tally = _Tally()
        self._published = False

    async def run(self, *, dry: bool = False, resume: bool = False) -> ReplaySummary:
        """Replay; ``dry`` writes nothing, ``resume`` goes on with the newest one that did not finish.

        Raises:
            ReplayError: it cannot be done as asked for.
            TransportError, QueryError, CassandraError, SchemaError, PublishError: a server does not do its part.
        """
        s = self._settings
        async with AsyncExitStack() as stack:
            registry = stack.enter_context(Registry(s.registry))
            session: Any = await asyncio.to_thread(connect, s.cassandra, "read", keyspace=s.cassandra.keyspace)
            stack.callback(close, session)
            table = describe_table(session, s.cassandra.keyspace, self._pipeline.table.name)
            records = ReplayRecords(session, s.cassandra.keyspace)
            source = await stack.enter_async_context(
                TopicSource(s.kafka, self._pipeline.source, rate=self._request.rate)
            )
            if resume:
                record = await asyncio.to_thread(self._unfinished, records)
                plan = self._plan_of(record)
            else:
                plan = await self._plan(source)
                record = self._new_record(plan)
            self._tell(plan)
            begun = time.monotonic()
            if not dry:
                if self._side:
                    await asyncio.to_thread(self._make_side_table, session, table, resume)
                if not resume:
                    record = await asyncio.to_thread(records.allocate, record)
            made, bad = await self._read(plan, record, source.read, registry)
            self._refuse_split_keys(made)
            counts = sum((r.counts for r in made.values()), Counts())
            # What the sink has yet to write may still change the table: then nothing in it counts as unchanged.
            settled = dry or bool(self._side) or await self._in_table("the sink first writes")
            self._report(Step("compare", f"with the rows of {table.name}"))
            present = await asyncio.to_thread(read_rows, session, table, plan.span)
            destination = None if dry else await self._destination(stack, registry)
            record, seen = await self._write(made, record, present, table, records, destination, settled)
            kept, names = _kept(present, seen, table)
            in_table = None
            if not dry:
                if self._published:
                    in_table = await self._in_table("writes")
                await asyncio.to_thread(records.update, replace(record, status=DONE))
        t = self._tally
        return ReplaySummary(
            plan, record.generation, record.destination, plan.offsets, time.monotonic() - begun, counts, bad,
            t.changed, t.added, t.unchanged, t.earlier, kept, names, in_table,
        )  # fmt: skip

    async def _plan(self, source: ReplaySource) -> ReplayPlan:
        r = self._request
        if r.begin >= r.end:
            raise ReplayError("the range is empty", hint="--from must be before --to")
        span = widened(self._pipeline, r.begin, r.end)
        found = await source.look(earliest_timestamp(self._settings, self._topic, self._pipeline, span))
        return plan_replay(self._settings, r, self._pipeline, self._topic, found)

    def _new_record(self, plan: ReplayPlan) -> ReplayRecord:
        now = datetime.now(UTC)
        return ReplayRecord(
            pipeline=self._pipeline.name, generation=0, status=READING, origin=self._pipeline.source,
            destination=self._side or self._pipeline.result_topic,
            range_begin=_instant(plan.span.begin), range_end=_instant(plan.span.end), lateness=str(plan.lateness),
            across_partitions=self._request.across_partitions,
            starts={p: start for p, (start, _) in plan.stretches.items()},
            ends={p: end for p, (_, end) in plan.stretches.items()},
            worker_generation=self._settings.worker.generation, fingerprint=fingerprint(plan), finished=frozenset(),
            changed=0, added=0, unchanged=0, started_at=now, updated_at=now,
        )  # fmt: skip

    def _unfinished(self, records: ReplayRecords) -> ReplayRecord:
        name, wanted = self._pipeline.name, self._side or self._pipeline.result_topic
        for record in records.of(name):
            if record.status != DONE and record.destination == wanted:
                return record
        raise ReplayError(f"no replay of {name} into {wanted} is unfinished", hint="leave --resume out to begin one")

    def _plan_of(self, record: ReplayRecord) -> ReplayPlan:
        lateness = record.lateness if record.lateness in ("declared", "unlimited") else int(record.lateness)
        span = Span(_ms(record.range_begin), _ms(record.range_end))
        stretches = {p: (record.starts[p], end) for p, end in record.ends.items()}
        note = f"going on with generation {record.generation}, begun {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
        plan = ReplayPlan(self._pipeline, self._topic, span, lateness, stretches, (note,))  # type: ignore[arg-type]
        if fingerprint(plan) != record.fingerprint:
            raise ReplayError(
                f"generation {record.generation} was begun by another program or declaration of {record.pipeline}",
                hint="rows of one generation must not differ: begin a new replay, without --resume",
            )
        self._tally = _Tally(record.changed, record.added, record.unchanged)
        return plan

    def _make_side_table(self, session: Any, table: QueryTable, resume: bool) -> None:
        if not resume and side_tables.exists(session, table.keyspace, self._side):
            raise ReplayError(
                f"table {self._side} exists already",
                hint=f"`fluvial compare {table.name} {self._request.into} --drop` removes it, or take another suffix",
            )
        side_tables.create(session, table, self._side)

    async def _read(
        self, plan: ReplayPlan, record: ReplayRecord, read: Read, registry: Registry
    ) -> tuple[dict[int, Replay], int]:
        upstream = plan.topic.upstream
        count = (
            (await asyncio.to_thread(partition_counts, self._settings.kafka, {upstream}))[upstream] if upstream else 0
        )
        left = frozenset(plan.stretches) - record.finished
        decoder = Decoder(self._catalog.schema_of(self._pipeline.source), registry)
        readers = {p: PartitionReader(plan, decoder, self._settings.worker, count) for p in left}
        made = replays_of(plan, left, count)
        reading = RangeReader(
            plan, readers, made, workers=self._request.workers, rate=self._request.rate, report=self._reading
        )
        await reading.read(read)
        return made, sum(r.bad for r in readers.values())

    def _refuse_split_keys(self, made: Mapping[int, Replay]) -> None:
        homes: dict[bytes, int] = {}
        for p, replay in made.items():
            keys = replay.keys()
            for i in range(len(keys)):
                key = keys.bytes_at(i) or b""
                if homes.setdefault(key, p) != p:
                    raise ReplayError(
                        f"key {key.decode(errors='replace')} has events of the range in partitions {homes[key]} and {p} of "
                        f"{self._pipeline.source}: partitions were added since, or a producer places keys otherwise",
                        hint="--across-partitions folds a key's events of all partitions together",
                    )

    async def _destination(self, stack: AsyncExitStack, registry: Registry) -> Destination:
        s, p = self._settings, self._pipeline
        if self._side:
            session: Any = await asyncio.to_thread(connect, s.cassandra, "write")
            stack.callback(close, session)
            return await asyncio.to_thread(SideTable, s, p, session, self._side)
        schema = self._catalog.schema_of(p.result_topic)
        encoder = Encoder(schema, registry.schema_id(f"{p.result_topic}-value", schema))
        return ResultTopic(p, encoder, await stack.enter_async_context(Publisher(s.kafka)))

    async def _write(
        self,
        made: Mapping[int, Replay],
        record: ReplayRecord,
        present: pa.Table,
        table: QueryTable,
        records: ReplayRecords,
        destination: Destination | None,
        settled: bool,
    ) -> tuple[ReplayRecord, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Write what differs, partition by partition; return the record, and which of the present rows were made."""
        generations = present["generation"].to_numpy()
        seen = np.zeros(len(present), np.bool_)
        t = self._tally
        for n, (p, replay) in enumerate(sorted(made.items()), 1):
            columns: dict[str, Column] = replay.columns(record.generation)
            found = differences(primary_key(table), produced(columns), present)
            seen[found.same[:, 1]] = seen[found.changed[:, 1]] = True
            before = (generations[found.same[:, 1]] == record.generation) & (record.generation > 0)
            t.earlier += int(before.sum())
            t.unchanged += int((~before).sum())
            t.changed += len(found.changed)
            t.added += len(found.left)
            rows = np.sort(np.concatenate([found.changed[:, 0], found.left]))
            if self._side or not settled:
                rows = np.arange(replay.counts.windows)
            if destination is not None:
                await destination.write(columns, rows)
                self._published |= not self._side and len(rows) + t.earlier > 0
                done = replace(record, status=WRITING, finished=record.finished | {p})
                record = replace(done, changed=t.changed, added=t.added, unchanged=t.unchanged)
                record = await asyncio.to_thread(records.update, record)
            self._report(Step("write", f"{len(rows):,} rows of partition {p}", n, len(made)))
        return record, seen

    async def _in_table(self, verb: str) -> bool:
        """Wait until the sink has written all that is in the result topic now; false when it does not get there."""
        topic = self._pipeline.result_topic

        def sinking(progress: SinkProgress) -> None:
            text = (
                f"{verb} {progress.left:,} records of {topic}" if progress.left else "ready: all rows are in the table"
            )
            self._report(Step("sink", text, progress.total - progress.left, progress.total))

        return await sink_has_written(self._settings, topic, await ends_of(self._settings, topic), sinking)

    def _reading(self, progress: ReadProgress) -> None:
        left, eta = progress.total - progress.done, progress.eta_seconds
        text = (
            f"{progress.per_second:,.0f} records/s, {left:,} to go, {_duration(eta)} left"
            if left
            else "ready: all records"
        )
        self._report(Step("read", text, progress.done, progress.total))


def _kept(present: pa.Table, seen: Any, table: QueryTable) -> tuple[int, tuple[str, ...]]:
    """Return how many final rows were not made, and some of their keys."""
    at = np.flatnonzero(~seen & (present["final"].to_numpy() == 1))
    some = present.take(at[:SHOWN_KEYS])
    names = [name for name, _ in table.key]
    shown = (" ".join([*(str(row[n]) for n in names), as_iso(row[table.time])]) for row in some.to_pylist())
    return len(at), tuple(shown)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"
