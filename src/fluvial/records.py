"""Columns of raw Kafka records and of decoded events: what the transport, the codecs and the processors hand each other.

No object per record exists here: strings are spans of one byte buffer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Spans:
    """n byte strings as spans of one buffer: string i is ``buffer[start[i] : start[i] + length[i]]``; length −1 is null."""

    buffer: U8
    start: I64
    length: I64

    def __len__(self) -> int:
        return len(self.start)

    def bytes_at(self, i: int) -> bytes | None:
        """Return string i as bytes, or None when it is null."""
        n = int(self.length[i])
        if n < 0:
            return None
        a = int(self.start[i])
        return self.buffer[a : a + n].tobytes()

    def take(self, rows: I64 | Mask) -> "Spans":
        """Return the strings at the given row numbers (or where the mask is true), sharing the buffer."""
        return Spans(self.buffer, self.start[rows], self.length[rows])


@dataclass(frozen=True, slots=True)
class Doubles:
    """n doubles; ``valid[i]`` is false where the value is null (its ``values[i]`` is then 0.0)."""

    values: F64
    valid: Mask

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Longs:
    """n 64-bit integers (also int, date, timestamps and booleans, as Avro stores them); null as in `Doubles`."""

    values: I64
    valid: Mask

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class StringLists:
    """n lists of strings: list i is ``items[offsets[i] : offsets[i + 1]]``. ``offsets`` has n + 1 entries."""

    offsets: I64
    items: Spans

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class DoubleLists:
    """n lists of doubles: list i is ``items[offsets[i] : offsets[i + 1]]``. ``offsets`` has n + 1 entries."""

    offsets: I64
    items: F64

    def __len__(self) -> int:
        return len(self.offsets) - 1


Column = Spans | Doubles | Longs | StringLists | DoubleLists


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """The records of one partition between two offsets, in offset order.

    ``offset`` and ``timestamp`` (broker or producer time, epoch ms) are int64[n]; ``header_start`` is where each record's
    header section starts in ``value.buffer`` (at the varint of the header count). ``key``, ``value`` share one buffer.
    ``next_offset`` is the offset after everything these columns cover, including compaction gaps, control batches and
    aborted transactions; it may lie far after ``offset[-1]``, and n may be 0.
    """

    topic: str
    partition: int
    offset: I64
    timestamp: I64
    key: Spans
    value: Spans
    header_start: I64
    next_offset: int

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why row ``row`` of a `RecordColumns` cannot be used."""

    row: int
    stage: str
    error_type: str
    message: str


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Decoded events, row for row with the `RecordColumns` they come from.

    ``columns`` maps each field of the reader's schema to its column (length n). Where ``ok`` is false (ticks, nulls, bad
    rows) the columns hold zeros and empty spans; ``errors`` has one entry per bad row, ascending.
    """

    columns: Mapping[str, Column]
    ok: Mask
    errors: tuple[RowError, ...]

    def __len__(self) -> int:
        return len(self.ok)


def take(column: Column, rows: I64) -> Column:
    """Return the given rows of a column, in that order (strings share the buffer)."""
    if isinstance(column, Spans):
        return column.take(rows)
    if isinstance(column, Doubles):
        return Doubles(column.values[rows], column.valid[rows])
    if isinstance(column, Longs):
        return Longs(column.values[rows], column.valid[rows])
    counts = np.diff(column.offsets)[rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], counts)
    places = np.repeat(column.offsets[:-1][rows], counts) + within
    if isinstance(column, StringLists):
        return StringLists(offsets, column.items.take(places))
    return DoubleLists(offsets, column.items[places])
