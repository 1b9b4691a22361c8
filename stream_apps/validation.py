"""Sorting the records of a fetch: events and ticks on, bad records aside with their reasons."""

from collections.abc import Sequence

import numpy as np

from fluvial.records import I64, Doubles, EventColumns, Longs, Mask, RecordColumns, RowError, Spans, take
from fluvial.schemas.declarations import Pipeline
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import StageBatch
from fluvial.transport.headers import TICK_HEADER, UPSTREAM_HEADER, null_value_longs

# 0001-01-01T00:00Z: below it a time cannot be written down, and far below it windows could not be counted.
EARLIEST_MS = -62_135_596_800_000


def sort_records(
    records: RecordColumns,
    events: EventColumns,
    pipelines: Sequence[Pipeline],
    *,
    event_time: str,
    max_ahead_ms: int,
    upstream_partitions: int,
) -> tuple[StageBatch, I64, list[RowError]]:
    """Return the usable records, their row numbers in ``records``, and one error per bad record, ascending.

    ``upstream_partitions`` > 0 says that the topic is rekeyed: its ticks name an upstream partition and have no key, and
    its events are not measured against the broker's clock (they were, upstream).
    """
    n = len(records)
    tick = null_value_longs(records, TICK_HEADER)
    upstream = null_value_longs(records, UPSTREAM_HEADER)
    is_null = records.value.length < 0
    errors = list(events.errors)
    good = events.ok | tick.valid

    def refuse(rows: Mask, error_type: str, message: str) -> None:
        errors.extend(RowError(row, "validate", error_type, message) for row in np.flatnonzero(rows).tolist())
        np.logical_and(good, ~rows, out=good)

    no_tick = is_null & ~tick.valid
    if no_tick.any():
        refuse(no_tick, "NullValue", f"a null value without a {TICK_HEADER} header (epoch ms)")
    if upstream_partitions:
        named = upstream.valid & (upstream.values >= 0) & (upstream.values < upstream_partitions)
        bad = tick.valid & (~named | (records.key.length >= 0))
        if bad.any():
            refuse(
                bad,
                "BadTick",
                f"a tick of a rekeyed topic has no key and names one of {upstream_partitions} upstream partitions",
            )
    for name in sorted({f for p in pipelines for f in _read(p)} | {event_time}):
        column = events.columns[name]
        if isinstance(column, Spans):
            missing = events.ok & (column.length < 0)
        elif isinstance(column, Doubles | Longs):
            missing = events.ok & ~column.valid
        else:
            continue
        if missing.any():
            refuse(missing, "MissingField", f"field {name} is null")
    for name in sorted({f for p in pipelines for f in (*p.identity, p.value) if f is not None}):
        column = events.columns[name]
        if isinstance(column, Doubles):
            wild = events.ok & ~np.isfinite(column.values)
            if wild.any():
                refuse(wild, "NotFinite", f"field {name} is NaN or infinite")
    time = events.columns[event_time]
    assert isinstance(time, Longs)
    ancient = events.ok & good & (time.values < EARLIEST_MS)
    if ancient.any():
        refuse(ancient, "BeforeYearOne", f"field {event_time} is before the year 1: a clock that was never set")
    if not upstream_partitions:
        ahead = events.ok & (time.values > records.timestamp + max_ahead_ms)
        if ahead.any():
            for row in np.flatnonzero(ahead & good).tolist():
                by = int(time.values[row] - records.timestamp[row])
                errors.append(
                    RowError(
                        row,
                        "validate",
                        "AheadOfTime",
                        f"the event is {by} ms ahead of its broker timestamp, more than the {max_ahead_ms} ms allowed",
                    )
                )
            np.logical_and(good, ~ahead, out=good)
    rows = np.arange(n) if good.all() else np.flatnonzero(good)
    is_tick = tick.valid
    kind = np.where(is_tick, np.where(records.key.length >= 0, k.KEYED_TICK, k.PARTITION_TICK), k.EVENT).astype(
        np.uint8
    )
    batch = StageBatch(
        kind, records.offset, tick.values, records.key, np.where(upstream.valid, upstream.values, -1), events
    )
    if len(rows) < n:
        batch = take_batch(batch, rows)
    return batch, rows, _first_per_row(errors)


def take_batch(batch: StageBatch, rows: I64) -> StageBatch:
    """Return the given rows of a batch."""
    columns = {name: take(c, rows) for name, c in batch.events.columns.items()}
    return StageBatch(
        batch.kind[rows], batch.offset[rows], batch.tick[rows], batch.record_key.take(rows), batch.upstream[rows],
        EventColumns(columns, batch.events.ok[rows], ()),
    )  # fmt: skip


def _read(p: Pipeline) -> tuple[str, ...]:
    return (*p.key, *([p.value] if p.value else []))


def _first_per_row(errors: list[RowError]) -> list[RowError]:
    by_row: dict[int, RowError] = {}
    for e in errors:
        by_row.setdefault(e.row, e)
    return [by_row[row] for row in sorted(by_row)]
