"""Record columns made from plain Python values, and Python values taken from columns."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fluvial.records import Column, DoubleLists, Doubles, Longs, RecordColumns, Spans, StringLists
from fluvial.schemas.columns import spans_from_strings


def framed(schema_id: int, datum: bytes) -> bytes:
    """A datum in Confluent's wire format."""
    return struct.pack(">bI", 0, schema_id) + datum


def records_of(values: Sequence[bytes | None], topic: str = "events") -> RecordColumns:
    """Records of one partition with these values, no keys, offsets from 0."""
    n = len(values)
    zeros = np.zeros(n, np.int64)
    value = spans_from_strings(list(values))
    return RecordColumns(topic, 0, np.arange(n), zeros, Spans(value.buffer, zeros, zeros - 1), value, zeros, n)


def value_at(column: Column, row: int) -> Any:
    """Row ``row`` of a column as a Python value; strings stay bytes."""
    match column:
        case Longs() | Doubles():
            return column.values[row].item() if column.valid[row] else None
        case Spans():
            return column.bytes_at(row)
        case StringLists():
            return [column.items.bytes_at(i) for i in range(column.offsets[row], column.offsets[row + 1])]
        case DoubleLists():
            return column.items[column.offsets[row] : column.offsets[row + 1]].tolist()
