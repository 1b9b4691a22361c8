"""Rows for the sink's tests: columns of a small table, and packed batches read back by the protocol's rules."""

import struct
from collections.abc import Iterator, Sequence

from fluvial.records import Column
from fluvial.schemas.columns import doubles, longs, spans_from_strings
from fluvial.sinks.rows import RowBatches, TablePlan

SMALL = TablePlan(
    "tests",
    "small",
    b"0123456789abcdef",
    (
        ("sensor_id", "text"),
        ("day", "date"),
        ("window_start", "timestamp"),
        ("window_end", "timestamp"),
        ("mean", "double"),
        ("generation", "int"),
        ("source_offset", "bigint"),
    ),
    ("sensor_id", "day"),
    ("window_start",),
    "day",
    True,
)

# Sensor, window start, mean, generation, source offset.
Row = tuple[str, int, float, int, int]
MINUTE_MS = 60_000


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """Return decoded result rows of one-minute windows, without the bucket."""
    sensor, start, mean, generation, offset = zip(*rows, strict=True) if rows else ((),) * 5
    return {
        "sensor_id": spans_from_strings(list(sensor)),
        "window_start": longs(list(start)),
        "window_end": longs([t + MINUTE_MS for t in start]),
        "mean": doubles(list(mean)),
        "generation": longs(list(generation)),
        "source_offset": longs(list(offset)),
    }


def read_batches(batches: RowBatches) -> Iterator[list[list[bytes | None]]]:
    """Yield each batch's rows as lists of cells (not set is None), checking every frame on the way."""
    for i in range(len(batches)):
        body, rows, at = bytes(batches.body[batches.bounds[i] : batches.bounds[i + 1]]), [], 0
        while at < len(body):
            kind, n = struct.unpack_from(">BH", body, at)
            at += 3
            assert (kind, body[at : at + n]) == (1, batches.plan.query_id)
            at += n
            (values,) = struct.unpack_from(">H", body, at)
            at += 2
            cells: list[bytes | None] = []
            for _ in range(values):
                (n,) = struct.unpack_from(">i", body, at)
                at += 4
                assert n >= -2
                cells.append(body[at : at + n] if n >= 0 else None)
                at += max(n, 0)
            rows.append(cells)
        assert len(rows) == batches.counts[i]
        yield rows
