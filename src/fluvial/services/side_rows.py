"""A side table beside the pipeline's own: their differences row by row, and publishing the side table's rows."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from fluvial.cassandra import connected
from fluvial.cluster.progress import Report, silent
from fluvial.query import QueryTable
from fluvial.query_reader import describe_table
from fluvial.records import I64, Column
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import double_lists, doubles, longs, spans_from_strings, string_lists
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services import side_tables
from fluvial.services.replay_plan import pipeline_and_topic
from fluvial.services.replay_records import DONE, READING, ReplayError, ReplayRecord, ReplayRecords
from fluvial.services.replay_runs import as_instant, as_ms
from fluvial.services.replay_writing import ResultTopic, sink_gets_there
from fluvial.services.table_rows import PROVENANCE, Differences, differences, primary_key, read_rows
from fluvial.settings import Settings
from fluvial.stream_apps.replay_rules import Span
from fluvial.transport.publisher import Publisher

# From 1970 to 9998: every row.
EVERYTHING = Span(0, 253_370_764_800_000)


@dataclass(frozen=True, slots=True)
class Change:
    """One cell that differs."""

    key: tuple[Any, ...]
    window_start: int
    column: str
    table: Any
    side: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table and its side table in a range. ``not_final`` rows are only in the table: live processing is at them.

    Row numbers in ``found`` are the table's (left) and the side table's (right).
    """

    table: QueryTable
    side: str
    span: Span
    made_by: ReplayRecord | None
    left: pa.Table
    right: pa.Table
    found: Differences
    only_table: I64
    not_final: int

    @property
    def equal(self) -> bool:
        """Whether no final row differs in a value, and none is on one side only."""
        return not (len(self.found.changed) or len(self.only_table) or len(self.found.right))

    def changes(self, limit: int) -> list[Change]:
        """Return the cells that differ of the first ``limit`` rows that do."""
        names = [name for name, _ in self.table.key]
        keys = primary_key(self.table)
        values = [c for c in self.left.column_names if c in self.right.column_names and c not in (*keys, *PROVENANCE)]
        out = []
        for mine, theirs in self.found.changed[:limit].tolist():
            a, b = self.left.slice(mine, 1).to_pylist()[0], self.right.slice(theirs, 1).to_pylist()[0]
            key = tuple(a[n] for n in names)
            out += [Change(key, a[self.table.time], c, a[c], b[c]) for c in values if a[c] != b[c]]
        return out


def compare_side_table(settings: Settings, name: str, suffix: str, begin: int | None, end: int | None) -> Comparison:
    """Compare a table with its side table; the range is the replay's that made it, where none is given. Blocking.

    Raises:
        ReplayError: there is no such side table, or its replay is not finished.
        CassandraError, QueryError: Cassandra does not answer.
    """
    keyspace = settings.cassandra.keyspace
    side = side_tables.side_name(name, suffix)
    with connected(settings.cassandra, "read", keyspace=keyspace) as session:
        table = describe_table(session, keyspace, name)
        if not side_tables.exists(session, keyspace, side):
            raise ReplayError(
                f"there is no table {side}", hint=f"`fluvial replay {name} --from … --into {suffix}` makes it"
            )
        runs = [r for r in ReplayRecords(session, keyspace).of(name) if r.destination == side]
        made_by = runs[0] if runs else None
        if made_by is not None and made_by.status != DONE:
            raise ReplayError(
                f"the replay into {side} is not finished", hint=f"`fluvial replay {name} --into {suffix} --resume`"
            )
        whole = Span(as_ms(made_by.range_begin), as_ms(made_by.range_end)) if made_by else EVERYTHING
        span = Span(whole.begin if begin is None else begin, whole.end if end is None else end)
        left = read_rows(session, table, span)
        right = read_rows(session, describe_table(session, keyspace, side), span)
    found = differences(primary_key(table), left, right)
    final = left["final"].to_numpy()[found.left] == 1
    return Comparison(table, side, span, made_by, left, right, found, found.left[final], int((~final).sum()))


def drop_side_table(settings: Settings, name: str, suffix: str) -> None:
    """Drop a side table. Blocking."""
    with connected(settings.cassandra, "read") as session:
        side_tables.drop(session, settings.cassandra.keyspace, side_tables.side_name(name, suffix))


@dataclass(frozen=True, slots=True)
class Promotion:
    """What promoting did: ``rows`` were published under a new generation. ``in_table`` as in `ReplaySummary`."""

    generation: int
    rows: int
    in_table: bool


async def promote_rows(
    settings: Settings, catalog: Catalog, compared: Comparison, *, report: Report = silent
) -> Promotion:
    """Publish the side table's rows that differ to the result topic, under a generation above all others.

    Raises:
        PublishError: Kafka did not acknowledge all of them; promoting again is safe.
    """
    pipeline, _ = pipeline_and_topic(settings, catalog, compared.table.name)
    topic, cassandra = pipeline.result_topic, settings.cassandra
    # Rows that the sink has yet to write may hide what differs: then all are published.
    settled = await sink_gets_there(settings, topic, "first writes", report)
    rows = np.sort(np.concatenate([compared.found.changed[:, 1], compared.found.right]))
    if not settled:
        rows = np.arange(len(compared.right))
    async with AsyncExitStack() as stack:
        registry = stack.enter_context(Registry(settings.registry))
        session = stack.enter_context(connected(cassandra, "read", keyspace=cassandra.keyspace))
        records = ReplayRecords(session, cassandra.keyspace)
        record = await asyncio.to_thread(records.allocate, _promotion(settings, compared, topic))
        schema = catalog.schema_of(topic)
        encoder = Encoder(schema, registry.schema_id(f"{topic}-value", schema))
        publisher = await stack.enter_async_context(Publisher(settings.kafka))
        columns = as_columns(compared.right, schema)
        columns["generation"] = longs(np.full(len(compared.right), record.generation))
        await ResultTopic(pipeline, encoder, publisher).write(columns, rows)
        changed = len(compared.found.changed)
        done = replace(record, status=DONE, changed=changed, added=len(rows) - changed, unchanged=0)
        await asyncio.to_thread(records.update, done)
    in_table = await sink_gets_there(settings, topic, "writes", report) if len(rows) else True
    return Promotion(record.generation, len(rows), in_table)


def as_columns(table: pa.Table, schema: Mapping[str, Any]) -> dict[str, Column]:
    """Return a plain Arrow table as the columns of a result schema."""
    out: dict[str, Column] = {}
    for field in schema["fields"]:
        column = table[field["name"]].combine_chunks()
        if pa.types.is_list(column.type):
            items = [x or [] for x in column.to_pylist()]
            out[field["name"]] = (
                string_lists(items) if pa.types.is_string(column.type.value_type) else double_lists(items)
            )
        elif pa.types.is_string(column.type):
            out[field["name"]] = spans_from_strings(column)
        else:
            values = column.fill_null(0).to_numpy(zero_copy_only=False)
            out[field["name"]] = doubles(values) if pa.types.is_floating(column.type) else longs(values)
    return out


def _promotion(settings: Settings, compared: Comparison, topic: str) -> ReplayRecord:
    now, made_by = datetime.now(UTC), compared.made_by
    return ReplayRecord(
        pipeline=compared.table.name, generation=0, status=READING, origin=compared.side, destination=topic,
        range_begin=as_instant(compared.span.begin), range_end=as_instant(compared.span.end),
        lateness=made_by.lateness if made_by else "", across_partitions=bool(made_by and made_by.across_partitions),
        starts={}, ends={}, worker_generation=settings.worker.generation,
        fingerprint=made_by.fingerprint if made_by else "", finished=frozenset(), changed=0, added=0, unchanged=0,
        started_at=now, updated_at=now,
    )  # fmt: skip
