"""A replay from beginning to end: plan, read, compare with what is in the table, write what differs, wait for the sink."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from fluvial.cassandra import close, connect
from fluvial.cluster.progress import Report, Step, silent
from fluvial.query import QueryTable
from fluvial.query_reader import describe_table
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services import side_tables
from fluvial.services.meter import duration
from fluvial.services.partitions import partition_counts
from fluvial.services.replay_apply import RowWriter, Tally, refuse_lower_generation
from fluvial.services.replay_archive import ArchiveSource
from fluvial.services.replay_plan import (
    ReplayPlan,
    ReplayRequest,
    earliest_timestamp,
    pipeline_and_topic,
    plan_replay,
)
from fluvial.services.replay_reading import PartitionReader, RangeReader, ReadProgress, folding_of
from fluvial.services.replay_records import DONE, REFUSED, ReplayError, ReplayRecord, ReplayRecords
from fluvial.services.replay_runs import new_run, plan_of_run, unfinished_run
from fluvial.services.replay_source import ReplaySource, TopicSource
from fluvial.services.replay_writing import Destination, ResultTopic, SideTable, sink_gets_there
from fluvial.services.table_rows import read_rows
from fluvial.settings import Settings
from fluvial.stream_apps.replay_rules import widened
from fluvial.stream_apps.replaying import Counts, Made
from fluvial.transport.publisher import Publisher


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay did (or, dry, would do).

    ``kept`` are final rows of the range that it did not make: they stay as they are; ``kept_keys`` names some.
    ``in_table`` is None where nothing had to go through the sink, and false where the sink has not written the rows.
    """

    plan: ReplayPlan
    generation: int
    destination: str
    records: int
    read_seconds: float
    seconds: float
    counts: Counts
    bad_records: int
    tally: Tally
    kept: int
    kept_keys: tuple[str, ...]
    in_table: bool | None


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
        self._bad = 0
        self._read_seconds = 0.0

    async def run(self, *, dry: bool = False, resume: bool = False) -> ReplaySummary:
        """Replay; ``dry`` writes nothing, ``resume`` goes on with the newest one that did not finish.

        Raises:
            ReplayError: it cannot be done as asked for.
            TransportError, QueryError, CassandraError, SchemaError, PublishError: a server does not do its part.
        """
        s, p = self._settings, self._pipeline
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            registry = stack.enter_context(Registry(s.registry))
            session: Any = await asyncio.to_thread(connect, s.cassandra, "read", keyspace=s.cassandra.keyspace)
            stack.callback(close, session)
            table = describe_table(session, s.cassandra.keyspace, p.table.name)
            records = ReplayRecords(session, s.cassandra.keyspace)
            source = await stack.enter_async_context(self._source())
            if resume:
                record = await asyncio.to_thread(unfinished_run, records, p.name, self._side or p.result_topic)
                plan = plan_of_run(record, source.name, p, self._topic)
            else:
                plan = await self._plan(source)
                record = new_run(plan, source.name, self._side or p.result_topic, s.worker.generation)
            self._tell(plan)
            if not dry:
                if self._side:
                    await asyncio.to_thread(self._make_side_table, session, table, resume)
                if not resume:
                    record = await asyncio.to_thread(records.allocate, record)
            try:
                made = await self._read(plan, record, source, registry)
            except ReplayError:
                if not dry and not record.finished:  # nothing to go on with
                    await asyncio.to_thread(records.update, replace(record, status=REFUSED))
                raise
            # What the sink has yet to write may still change the table: then nothing in it counts as unchanged.
            settled = dry or bool(self._side) or await self._sunk("first writes")
            self._report(Step("compare", f"with the rows of {table.name}"))
            present = await asyncio.to_thread(read_rows, session, table, plan.span)
            refuse_lower_generation(present, record)
            destination = None if dry else await self._destination(stack, registry)
            writer = RowWriter(
                table, present, records, destination, everything=bool(self._side) or not settled,
                retention_days=p.table.retention_days, now_ms=int(time.time() * 1000), report=self._report,
            )  # fmt: skip
            record = await writer.write(made, record)
            in_table = None
            if not dry:
                if not self._side and (writer.written or resume):
                    in_table = await self._sunk("writes")
                await asyncio.to_thread(records.update, replace(record, status=DONE))
        counts = sum((r.counts for r in made.values()), Counts())
        return ReplaySummary(
            plan, record.generation, record.destination, plan.offsets, self._read_seconds, time.monotonic() - begun, counts,
            self._bad, writer.tally, *writer.kept(), in_table,
        )  # fmt: skip

    def _source(self) -> ReplaySource:
        topic, archive = self._pipeline.source, self._request.archive
        if archive is not None:
            return ArchiveSource(archive.resolve(), topic)
        return TopicSource(self._settings.kafka, topic, rate=self._request.rate)

    async def _plan(self, source: ReplaySource) -> ReplayPlan:
        r = self._request
        if r.begin >= r.end:
            raise ReplayError("the range is empty", hint="--from must be before --to")
        span = widened(self._pipeline, r.begin, r.end)
        found = await source.look(earliest_timestamp(self._settings, self._topic, self._pipeline, span))
        return plan_replay(self._settings, r, self._pipeline, self._topic, found)

    def _make_side_table(self, session: Any, table: QueryTable, resume: bool) -> None:
        if not resume and side_tables.exists(session, table.keyspace, self._side):
            raise ReplayError(
                f"table {self._side} exists already",
                hint=f"`fluvial compare {table.name} {self._request.into} --drop` removes it, or take another suffix",
            )
        side_tables.create(session, table, self._side)

    async def _read(
        self, plan: ReplayPlan, record: ReplayRecord, source: ReplaySource, registry: Registry
    ) -> Mapping[int, Made]:
        s, upstream, begun = self._settings, plan.topic.upstream, time.monotonic()
        count = (await asyncio.to_thread(partition_counts, s.kafka, {upstream}))[upstream] if upstream else 0
        left = frozenset(plan.stretches) - record.finished
        decoder = Decoder(self._catalog.schema_of(self._pipeline.source), registry)
        readers = {p: PartitionReader(plan, decoder, s.worker, count) for p in left}
        folding = folding_of(plan, left, count)
        reading = RangeReader(
            plan, readers, folding.parts, workers=self._request.workers, rate=self._request.rate, report=self._reading
        )
        await reading.read(source.read)
        self._bad = sum(r.bad for r in readers.values())
        self._read_seconds = time.monotonic() - begun
        made = {p: m for p, m in folding.made.items() if p not in record.finished}
        refuse_split_keys(made, self._pipeline.source)
        return made

    async def _destination(self, stack: AsyncExitStack, registry: Registry) -> Destination:
        s, p = self._settings, self._pipeline
        if self._side:
            session: Any = await asyncio.to_thread(connect, s.cassandra, "write")
            stack.callback(close, session)
            return await asyncio.to_thread(SideTable, s, p, session, self._side)
        schema = self._catalog.schema_of(p.result_topic)
        encoder = Encoder(schema, registry.schema_id(f"{p.result_topic}-value", schema))
        return ResultTopic(p, encoder, await stack.enter_async_context(Publisher(s.kafka)))

    async def _sunk(self, verb: str) -> bool:
        return await sink_gets_there(self._settings, self._pipeline.result_topic, verb, self._report)

    def _reading(self, progress: ReadProgress) -> None:
        left = progress.total - progress.done
        text = f"{progress.per_second:,.0f} records/s, {left:,} to go, {duration(progress.eta_seconds)} left"
        self._report(Step("read", text if left else "ready: all records", progress.done, progress.total))


def refuse_split_keys(made: Mapping[int, Made], topic: str) -> None:
    """Check that no key of the range is in two partitions.

    Raises:
        ReplayError: one is; each partition alone would make an incomplete row of it.
    """
    homes: dict[bytes, int] = {}
    for p, part in made.items():
        keys = part.keys()
        for i in range(len(keys)):
            key = keys.bytes_at(i) or b""
            if homes.setdefault(key, p) != p:
                raise ReplayError(
                    f"key {key.decode(errors='replace')} has events of the range in partitions {homes[key]} and {p} of "
                    f"{topic}: partitions were added since, or a producer places keys otherwise",
                    hint="--across-partitions folds a key's events of all partitions together",
                )
