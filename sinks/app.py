"""The sink: a Faust app that writes every row of its topics to Cassandra and acknowledges it afterwards."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from faust.types import TP

from fluvial import failpoints
from fluvial.cassandra import close
from fluvial.errors import FluvialError, SinkError
from fluvial.records import RecordColumns, RowError, Spans
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.sources import RegistryUnavailableError
from fluvial.settings import CassandraSettings, KafkaSettings, SinkSettings
from fluvial.sinks.gaps import choices
from fluvial.sinks.rows import Owner, RowBatches, TablePlan, row_batches, usable
from fluvial.sinks.tables import plan_table, replica_owner
from fluvial.sinks.targets import Target
from fluvial.sinks.writer import CassandraWriter
from fluvial.transport.app import BatchApp, BatchTopic, batch_app
from fluvial.transport.available import FromAvailable, GapPolicy
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.publisher import OutRecord, Publisher

log = logging.getLogger(__name__)

LANES = 2
FETCH_BYTES = 8 << 20
BUFFERED_BATCHES = 4
HAND_OVER_SECONDS = 10.0
REGISTRY_RETRY_SECONDS = 5.0

# Called with every batch when its rows are written, also where nothing is wrong with it, in a thread; raises when too
# much is wrong.
DeadLetters = Callable[[RecordColumns, Sequence[RowError]], Sequence[OutRecord]]


@dataclass(frozen=True, slots=True)
class SinkTopic:
    """Where a topic's records go; ``dead_letters`` wraps those that cannot be used or written."""

    name: str
    target: Target
    decoder: Decoder
    dead_letters: DeadLetters


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A batch's records, the rows to write of them, and those that are none."""

    records: RecordColumns
    rows: RowBatches
    errors: list[RowError]


@dataclass(slots=True)
class SinkCounts:
    """Records handled so far: read = written + expired + superseded + dead-lettered + nulls (ticks)."""

    read: int = 0
    dead_lettered: int = 0
    nulls: int = 0


class Sink:
    """The sink of one process: `app` is its Faust app, `writer` what it writes with.

    A fetched batch is decoded in a thread while others are written, and acknowledged when Cassandra has acknowledged
    all of its rows. While Cassandra is away consumption is paused. On a rebalance, what is not finished soon is given
    up unacknowledged and read again by whoever has the partition then.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: SinkSettings,
        cassandra: CassandraSettings,
        session: Any,
        topics: Sequence[SinkTopic],
        *,
        from_available: FromAvailable | None = None,
        wall_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Check the tables and prepare their statements; take over the session. Blocks.

        ``from_available`` says after which gaps in the log the sink may go on.

        Raises:
            SinkError: a table is missing or another than declared, or has other columns than its rows.
        """
        self._kafka = kafka
        self._settings = settings
        self._session = session
        self._wall_ms = wall_ms
        self._topics = {t.name: t for t in topics}
        self._plans: Mapping[str, TablePlan] = {
            t.name: plan_table(session, cassandra.keyspace, t.target.table, t.target.time) for t in topics
        }
        self._owner: Owner | None = replica_owner(session, cassandra.keyspace)
        for t in topics:
            self._rehearse(t)
        self.writer = CassandraWriter(
            session, max_in_flight=settings.max_in_flight, timeout_seconds=cassandra.request_timeout_seconds
        )
        self.counts = SinkCounts()
        self._publisher: Publisher | None = None
        self._pool = ThreadPoolExecutor(2, "fluvial-rows")
        self._lanes: set[asyncio.Task[None]] = set()
        self._lane_free = asyncio.Event()
        self._paused = False
        self._told_expired: set[str] = set()
        self.app: BatchApp = batch_app(
            settings.group,
            kafka,
            topics=[BatchTopic(name) for name in self._topics],
            on_revoked=self._on_revoked,
            gaps=GapPolicy(from_available or FromAvailable(), hint=choices, rereads=True),
            instance_id=settings.instance_id,
            web_port=settings.web_port,
            fetch_bytes=FETCH_BYTES,
            buffered_batches=BUFFERED_BATCHES,
        )
        for name in self._topics:
            self.app.agent(self.app.batch_topic(name), name=f"fluvial.sink.{name}")(self._agent)
        self.app.timer(1.0, name="fluvial.sink.pauses")(self._follow_pauses)

    def _rehearse(self, topic: SinkTopic) -> None:
        """Write no rows: what would go wrong with the first ones goes wrong here, and the loops are compiled."""
        plan = self._plans[topic.name]
        none = np.zeros(0, np.int64)
        empty = Spans(np.zeros(0, np.uint8), none, none)
        events = topic.decoder.decode(RecordColumns(topic.name, 0, none, none, empty, empty, none, 0))
        columns, stamps = topic.target.rows(events.columns)
        unknown = [name for name in columns if name not in dict(plan.columns)]
        if unknown:
            raise SinkError(
                f"rows of {topic.name} have {', '.join(unknown)}, table {plan.keyspace}.{plan.name} has not",
                hint="add the columns: a migration in the schema's folder, then `fluvial init`",
            )
        row_batches(plan, columns, none, stamps, now_ms=0, rows_per_batch=1, owner=self._owner)

    def close(self) -> None:
        """Close the session and the threads; call it when the app has stopped."""
        self._pool.shutdown()
        close(self._session)

    async def _agent(self, stream: Any) -> None:
        async for batch in stream:
            batch.hold()
            if await self._free_lane():
                lane = asyncio.create_task(self._handle(batch))
                self._lanes.add(lane)
                lane.add_done_callback(self._left)

    async def _free_lane(self) -> bool:
        """Wait for a free lane; false when a rebalance has begun, after which the batch is read again."""
        while len(self._lanes) >= LANES:
            if not self.app.flow_control.is_active():
                return False
            self._lane_free.clear()
            try:
                async with asyncio.timeout(0.5):
                    await self._lane_free.wait()
            except TimeoutError:
                continue
        return bool(self.app.flow_control.is_active())

    def _left(self, lane: "asyncio.Task[None]") -> None:
        self._lanes.discard(lane)
        self._lane_free.set()

    async def _handle(self, batch: FetchedBatch) -> None:
        try:
            loop = asyncio.get_running_loop()
            while True:
                try:
                    found = await loop.run_in_executor(self._pool, self._prepare, batch)
                    break
                except RegistryUnavailableError as e:
                    log.warning("%s: asking again in %.0f s", e, REGISTRY_RETRY_SECONDS)
                    with self.app.expected_wait("the schema registry is away"):
                        await asyncio.sleep(REGISTRY_RETRY_SECONDS)
            refused = await self.writer.try_write(found.rows)
            dead = await loop.run_in_executor(self._pool, self._set_aside, found, refused)
            if dead:
                log.error("%s: %d bad rows of %d go to its dead-letter topic", batch, len(dead), len(found.records))
                publisher = await self._publishing()
                await (await publisher.publish_records(f"{batch.topic}.dead-letter", dead))
            failpoints.hit("sink.between-write-and-commit")
            batch.ack()
        except asyncio.CancelledError:
            raise
        except Exception as e:
            await self.app.fail_stop(e)
            if not isinstance(e, FluvialError):
                raise

    def _prepare(self, batch: FetchedBatch) -> _Prepared:
        topic, plan = self._topics[batch.topic], self._plans[batch.topic]
        records = batch.columns()
        events = topic.decoder.decode(records)
        columns, stamps = topic.target.rows(events.columns)
        good = events.ok & usable(columns, plan)
        errors = [*events.errors]
        bad_key = f"a key or time that table {plan.name} cannot have"
        errors += (RowError(row, "process", "BadKey", bad_key) for row in np.flatnonzero(events.ok & ~good).tolist())
        rows = row_batches(
            plan,
            columns,
            np.flatnonzero(good),
            stamps,
            now_ms=self._wall_ms(),
            rows_per_batch=self._settings.rows_per_batch,
            owner=self._owner,
        )
        self.counts.read += len(records)
        self.counts.nulls += int((~events.ok).sum()) - len(events.errors)
        self._tell_expired(batch.topic, topic, rows.expired)
        return _Prepared(records, rows, errors)

    def _set_aside(self, found: _Prepared, refused: list[RowError]) -> Sequence[OutRecord]:
        errors = sorted([*found.errors, *refused], key=lambda e: e.row)
        self.counts.dead_lettered += len(errors)
        return self._topics[found.records.topic].dead_letters(found.records, errors)

    def _tell_expired(self, name: str, topic: SinkTopic, expired: int) -> None:
        """Say once per topic that rows are too old for their table; `CassandraWriter.counts` has how many."""
        if expired and name not in self._told_expired:
            self._told_expired.add(name)
            table = topic.target.table
            log.warning("%s: rows past the %d days that %s keeps are skipped", name, table.retention_days, table.name)

    async def _on_revoked(self, tps: frozenset[TP]) -> None:
        if self._lanes and not self.writer.paused:
            await asyncio.wait(set(self._lanes), timeout=HAND_OVER_SECONDS)
        given_up = [lane for lane in self._lanes if not lane.done()]
        for lane in given_up:
            lane.cancel()
        if given_up:
            log.info("%d batches are not finished and will be read again", len(given_up))
            await asyncio.gather(*given_up, return_exceptions=True)

    async def _follow_pauses(self) -> None:
        """Pause consumption while Cassandra is away; Faust itself resumes partitions after a rebalance.

        Not when a rebalance has given up every batch: then the next one that comes has to find out when it is back.
        """
        consumer = self.app.consumer
        if self.writer.paused and self._lanes:
            consumer.pause_partitions(consumer.assignment())
            self._paused = True
        elif self._paused and consumer.flow_active and not self.app.rebalancing:
            consumer.resume_partitions(consumer.assignment())
            self._paused = False

    async def _publishing(self) -> Publisher:
        if self._publisher is None:
            self._publisher = await self.app.add_async_context(Publisher(self._kafka))
        return self._publisher
