"""Where a replay's rows go: the result topic, whence the sink writes them, or a side table."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from fluvial.cluster.progress import Report, Step
from fluvial.errors import TransportError
from fluvial.records import I64, Column, Spans, take
from fluvial.schemas.declarations import Pipeline
from fluvial.schemas.encoder import Encoder
from fluvial.services.progress import GroupProgress
from fluvial.settings import Settings
from fluvial.sinks.rows import row_batches, usable
from fluvial.sinks.tables import plan_table, replica_owner
from fluvial.sinks.targets import result_target
from fluvial.sinks.writer import CassandraWriter
from fluvial.stream_apps.interning import joined
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher

CHUNK_ROWS = 50_000
POLL_SECONDS = 0.5
# A sink that gets nowhere for so long, or that nobody runs.
STUCK_SECONDS = 60.0
MEMBERLESS_SECONDS = 3.0
# librdkafka tells on stderr that it forgets answers nobody waits for.
QUIET = {"log_level": 4}

Columns = Mapping[str, Column]


class Destination(Protocol):
    """Takes rows; when `write` returns they are there to stay."""

    async def write(self, columns: Columns, rows: I64) -> None: ...


class ResultTopic:
    """The pipeline's result topic: the log of results, which every sink follows."""

    def __init__(self, pipeline: Pipeline, encoder: Encoder, publisher: Publisher) -> None:
        self._pipeline = pipeline
        self._encoder = encoder
        self._publisher = publisher

    async def write(self, columns: Columns, rows: I64) -> None:
        """Publish the given rows; returns when Kafka has acknowledged all of them."""
        deliveries = []
        for i in range(0, len(rows), CHUNK_ROWS):
            part = {name: take(c, rows[i : i + CHUNK_ROWS]) for name, c in columns.items()}
            keys = joined([_spans(part[f]) for f in self._pipeline.key])
            values = await asyncio.to_thread(self._encoder.encode, part)
            deliveries.append(await self._publisher.publish(self._pipeline.result_topic, keys, values))
        for delivery in deliveries:
            await delivery


class SideTable:
    """A table beside the pipeline's own, written as the sink writes."""

    def __init__(self, settings: Settings, pipeline: Pipeline, session: Any, name: str) -> None:
        """Take over a session for writing; blocks."""
        table = replace(pipeline.table, name=name)
        self._rows_per_batch = settings.sink.rows_per_batch
        self._plan = plan_table(session, settings.cassandra.keyspace, table)
        self._owner = replica_owner(session, settings.cassandra.keyspace)
        self._target = result_target(table)
        self._writer = CassandraWriter(
            session,
            max_in_flight=settings.sink.max_in_flight,
            timeout_seconds=settings.cassandra.request_timeout_seconds,
        )

    async def write(self, columns: Columns, rows: I64) -> None:
        """Write the given rows; returns when Cassandra has acknowledged all of them."""
        for i in range(0, len(rows), CHUNK_ROWS):
            part = {name: take(c, rows[i : i + CHUNK_ROWS]) for name, c in columns.items()}
            await self._writer.write(await asyncio.to_thread(self._batches, part))

    def _batches(self, part: Columns) -> Any:
        columns, stamps = self._target.rows(part)
        return row_batches(
            self._plan, columns, np.flatnonzero(usable(columns, self._plan)), stamps,
            now_ms=int(time.time() * 1000), rows_per_batch=self._rows_per_batch, owner=self._owner,
        )  # fmt: skip


async def sink_gets_there(settings: Settings, topic: str, verb: str, report: Report) -> bool:
    """Wait until the sink has written all that is in a result topic now; false when no sink runs or it does not get on."""
    progress, group = GroupProgress(settings.kafka), settings.sink.group
    admin = AdminClient(librdkafka_config(settings.kafka) | QUIET)
    ends = {p.partition: p.end for p in await asyncio.to_thread(progress.positions, group, {topic})}
    total = least = -1
    since = time.monotonic()
    while True:
        positions = await asyncio.to_thread(progress.positions, group, {topic})
        left = sum(max(ends[p.partition] - max(p.committed, p.begin), 0) for p in positions if p.partition in ends)
        total = max(total, left)
        if left == 0:
            report(Step("sink", "ready: all rows are in the table", total, total))
            return True
        report(Step("sink", f"{verb} {left:,} records of {topic}", total - left, total))
        if least < 0 or left < least:
            least, since = left, time.monotonic()
        idle = time.monotonic() - since
        if idle > STUCK_SECONDS or (
            idle > MEMBERLESS_SECONDS and not await asyncio.to_thread(has_members, admin, group)
        ):
            return False
        await asyncio.sleep(POLL_SECONDS)


def has_members(admin: AdminClient, group: str) -> bool:
    """Return whether anybody is in a consumer group. Blocking.

    Raises:
        TransportError: Kafka does not answer.
    """
    try:
        return bool(admin.describe_consumer_groups([group], request_timeout=30)[group].result(timeout=35).members)
    except KafkaException as e:
        if e.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return False
        raise TransportError(f"Kafka does not tell who is in group {group}: {e}", hint="`fluvial status`") from None


def _spans(column: Column) -> Spans:
    assert isinstance(column, Spans)
    return column
