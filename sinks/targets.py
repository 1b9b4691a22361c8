"""Which table a topic's rows go to, and what is added to them on the way: bucket, write timestamp, expiry, event id."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fluvial.errors import SinkError
from fluvial.records import I64, Column, Doubles, Longs, Spans
from fluvial.schemas.columns import spans_from_strings
from fluvial.schemas.declarations import Table
from fluvial.sinks.rows import Stamps, buckets, result_stamps

DAY_MS = 86_400_000

Columns = Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Target:
    """A table, the column of a row's time (its first clustering column), and how a row's stamps are made.

    ``complete`` returns the decoded columns with those that the table has beside them, the bucket excepted.
    """

    table: Table
    time: str
    complete: Callable[[Columns], Columns]
    stamps: Callable[[Columns], Stamps]

    def rows(self, columns: Columns) -> tuple[Columns, Stamps]:
        """Return all columns of the table and the rows' stamps."""
        times = columns[self.time]
        if not isinstance(times, Longs):
            raise SinkError(f"{self.table.name}: {self.time} is no time", hint="correct the topic's schema")
        return (
            {**self.complete(columns), str(self.table.bucket): buckets(times.values, self.table.bucket)},
            self.stamps(columns),
        )


def result_target(table: Table) -> Target:
    """Return the target of a pipeline's rows: whole rows, written at ``generation << 44 | source_offset``."""

    def stamps(columns: Columns) -> Stamps:
        return result_stamps(columns, table.retention_days)

    return Target(table, "window_start", lambda columns: columns, stamps)


def readings_target(retention_days: int) -> Target:
    """Return the target of raw readings: one row per identity, written at the event's own time; 0 days are for ever.

    Readings do not change, so any constant wall-like timestamp will do; the event's own in µs gives SSTables that time
    windows can drop whole, and the same one however often the reading was sent.
    """

    def complete(columns: Columns) -> Columns:
        return {**columns, "event_id": event_ids(columns["sequence"], columns["value"])}

    def stamps(columns: Columns) -> Stamps:
        times = columns["event_time"]
        assert isinstance(times, Longs)
        expires = times.values + retention_days * DAY_MS if retention_days else None
        return Stamps(times.values * 1000, expires)

    key = ("sensor_id", "metric")
    table = Table("sensor_readings", key, "day", clustering=("event_id",), retention_days=retention_days)
    return Target(table, "event_time", complete, stamps)


def event_ids(sequence: Column, value: Column) -> Spans:
    """Return what tells readings of one sensor, metric and time apart: ``s<sequence>``, or without one ``v<value>``."""
    if not isinstance(sequence, Longs) or not isinstance(value, Doubles):
        raise SinkError("readings need an integer sequence and a number as value", hint="see fluvial.iot.SensorReading")
    numbers: I64 = sequence.values
    values = np.where(value.values == 0, 0.0, value.values)  # −0.0 equals 0.0
    return spans_from_strings(
        [
            f"s{s}" if numbered else f"v{v!r}"
            for s, v, numbered in zip(numbers.tolist(), values.tolist(), sequence.valid.tolist(), strict=True)
        ]
    )
