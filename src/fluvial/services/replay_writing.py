"""Where a replay's rows go: the result topic, whence the sink writes them, or a side table."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from fluvial.errors import TransportError
from fluvial.records import I64, Column, Spans, take
from fluvial.schemas.declarations import Pipeline
from fluvial.schemas.encoder import Encoder
from fluvial.services.progress import GroupProgress
from fluvial.settings import KafkaSettings, Settings
from fluvial.sinks.rows import row_batches, usable
from fluvial.sinks.tables import plan_table, replica_owner
from fluvial.sinks.targets import result_target
from fluvial.sinks.writer import CassandraWriter
from fluvial.stream_apps.interning import joined
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher

CHUNK_ROWS = 50_000
POLL_SECONDS = 0.5
STUCK_SECONDS = 60.0

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


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """How many records of the result topic the sink still has to write before the replay's rows are in the table."""

    left: int
    total: int


async def sink_has_written(
    settings: Settings, topic: str, ends: Mapping[int, int], report: Callable[[SinkProgress], None]
) -> bool:
    """Wait until the sink's group has committed past the given ends; false when no sink runs or none gets on."""
    progress = GroupProgress(settings.kafka)
    group, total, least, since = settings.sink.group, -1, -1, time.monotonic()
    while True:
        positions = await asyncio.to_thread(progress.positions, group, {topic})
        left = sum(max(ends.get(p.partition, 0) - max(p.committed, p.begin), 0) for p in positions)
        total = max(total, left)
        report(SinkProgress(left, total))
        if left == 0:
            return True
        if least < 0 or left < least:
            least, since = left, time.monotonic()
        idle = time.monotonic() - since
        if idle > STUCK_SECONDS or (idle > 3 and not await asyncio.to_thread(has_members, settings.kafka, group)):
            return False
        await asyncio.sleep(POLL_SECONDS)


async def ends_of(settings: Settings, topic: str) -> dict[int, int]:
    """Return the ends of a topic's partitions now."""
    positions = await asyncio.to_thread(GroupProgress(settings.kafka).positions, settings.sink.group, {topic})
    return {p.partition: p.end for p in positions}


def has_members(kafka: KafkaSettings, group: str) -> bool:
    """Return whether anybody is in a consumer group. Blocking.

    Raises:
        TransportError: Kafka does not answer.
    """
    admin = AdminClient(librdkafka_config(kafka))
    try:
        return bool(admin.describe_consumer_groups([group], request_timeout=30)[group].result(timeout=35).members)
    except KafkaException as e:
        if e.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return False
        raise TransportError(f"Kafka does not tell who is in group {group}: {e}", hint="`fluvial status`") from None


def _spans(column: Column) -> Spans:
    assert isinstance(column, Spans)
    return column
