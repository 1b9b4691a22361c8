"""A topic's events as typed columns, for those who analyse them: what ``fluvial archive --decoded`` writes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fluvial.archive.cells import RECORD, binary
from fluvial.archive.files import EVENTS
from fluvial.archive.rows import Rows
from fluvial.records import Column, DoubleLists, Doubles, Longs, Mask, RecordColumns, Spans, StringLists, take
from fluvial.schemas.columns import column_to_arrow
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.sources import SchemaSource

ERROR = "decode_error"
RESERVED = frozenset({"topic", "partition", "offset", "timestamp", "record_key", ERROR})
_BEFORE = [RECORD.field("offset"), RECORD.field("timestamp"), pa.field("record_key", pa.binary())]
_LOGICAL = {
    "timestamp-millis": pa.timestamp("ms", tz="UTC"),
    "timestamp-micros": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
}
_TYPES = {
    "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float64(), "double": pa.float64(),
    "string": pa.string(), "enum": pa.string(), "bytes": pa.binary(), "fixed": pa.binary(),
}  # fmt: skip
_PLAIN: Mapping[type, pa.DataType] = {
    Longs: pa.int64(), Doubles: pa.float64(), Spans: pa.string(), StringLists: pa.list_(pa.string()),
    DoubleLists: pa.list_(pa.float64()),
}  # fmt: skip


def event_rows(schema: dict[str, Any], schemas: SchemaSource) -> Rows:
    """Return how records of a topic of that Avro schema become rows: offset, timestamp, record_key, the fields, decode_error.

    A record that cannot be decoded is a row without fields that says why; ticks and other records without a value are left
    out. The registry being away raises `RegistryUnavailableError` when rows are made.
    """
    decoder = Decoder(schema, schemas)
    nothing = np.zeros(0, np.int64)
    spans = Spans(np.zeros(0, np.uint8), nothing, nothing)
    columns = decoder.decode(RecordColumns("", 0, nothing, nothing, spans, spans, nothing, 0)).columns
    types = {f["name"]: _type(f["type"], columns[f["name"]]) for f in schema["fields"]}
    # The record's own columns win where a field has the same name.
    names = {name: name if name not in RESERVED else f"event_{name}" for name in types}
    fields = [pa.field(names[name], kind) for name, kind in types.items()]
    made = pa.schema([*_BEFORE, *fields, pa.field(ERROR, pa.string())])

    def make(records: RecordColumns, _: Mask) -> pa.RecordBatch:
        events = decoder.decode(records)
        why: list[str | None] = [None] * len(records)
        for e in events.errors:
            why[e.row] = e.message
        bad = np.zeros(len(records), np.bool_)
        bad[[e.row for e in events.errors]] = True
        rows = np.flatnonzero(events.ok | bad)
        present = pa.array(events.ok[rows])
        arrays = [
            pa.array(records.offset[rows]),
            pa.array(records.timestamp[rows]).cast(made.field("timestamp").type),
            binary(records.key.take(rows)),
        ]
        for name, kind in types.items():
            column = pa.compute.if_else(present, _array(take(events.columns[name], rows), kind), pa.scalar(None, kind))
            arrays.append(column)
        arrays.append(pa.array([why[i] for i in rows.tolist()], pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=made)

    repeated = tuple(f.name for f in fields if pa.types.is_string(f.type))
    return Rows(EVENTS, made, make, ("record_key", *repeated, ERROR))


def _type(avro: Any, column: Column) -> pa.DataType:
    """Return the Arrow type of a field: its logical type's, else that of its Avro type, else that of its column."""
    if isinstance(avro, list):
        rest = [branch for branch in avro if branch != "null"]
        return _type(rest[0], column) if len(rest) == 1 else _PLAIN[type(column)]
    kind = avro.get("type") if isinstance(avro, dict) else avro
    logical = avro.get("logicalType") if isinstance(avro, dict) else None
    if isinstance(column, Longs) and logical in _LOGICAL:
        return _LOGICAL[logical]
    plain = _PLAIN[type(column)]
    if isinstance(column, StringLists | DoubleLists) or not isinstance(kind, str) or logical == "decimal":
        return plain
    return _TYPES.get(kind, plain)


def _array(column: Column, kind: pa.DataType) -> pa.Array:
    if isinstance(column, Spans):
        return binary(column, kind)
    array = column_to_arrow(column)
    if pa.types.is_date32(kind):
        return array.cast(pa.int32()).cast(kind)
    return array.cast(kind)
