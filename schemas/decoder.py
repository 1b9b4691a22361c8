"""Columns from records: Confluent-framed Avro, any mix of writers' schemas, no Python object per event."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from fluvial.errors import SchemaError
from fluvial.records import (
    I64,
    U8,
    Column,
    DoubleLists,
    Doubles,
    EventColumns,
    Longs,
    RecordColumns,
    RowError,
    Spans,
    StringLists,
)
from fluvial.schemas import decode_kernel as kernel
from fluvial.schemas.columns import sealed
from fluvial.schemas.fallback import Transcoder, columnar_schema
from fluvial.schemas.layout import Layout, layout_of
from fluvial.schemas.program import Program, describe
from fluvial.schemas.shapes import shape_of
from fluvial.schemas.sources import SchemaSource, UnknownSchemaError

STAGE = "decode"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A program as the kernel takes it, and each known schema id's entry or the error that its rows get."""

    code: I64
    constants: U8
    places: Mapping[int, str]
    default_items: int
    uses_text_constants: bool
    entries: Mapping[int, int]
    refused: Mapping[int, tuple[str, str]]


class Decoder:
    """Decodes values as the reader's record. Safe to share between threads; releases the interpreter's lock.

    Rows are resolved from their writer's schema by Avro's rules. The reader's fields may be numbers, booleans, strings,
    bytes, fixed, enums (each also nullable), and arrays of strings or doubles; decimals, unions of numbers and nullable
    arrays are read too, row by row with fastavro.
    """

    def __init__(self, reader_schema: Any, schemas: SchemaSource) -> None:
        """Prepare a decoder.

        Raises:
            SchemaError: the reader's schema is invalid or a field of it has no columnar form.
        """
        self._schemas = schemas
        self._reader = shape_of(reader_schema)
        self._layout = layout_of(self._reader)
        self._transcoder: Transcoder | None = None
        if not all(c.native for c in self._layout.columns):
            self._transcoder = Transcoder(reader_schema, self._layout, schemas)
            self._reader = shape_of(columnar_schema(self._layout))
            self._layout = layout_of(self._reader)
        self._program = Program(self._layout)
        self._lock = Lock()
        self._snapshot = _Snapshot(np.zeros(0, np.int64), np.zeros(0, np.uint8), {}, 0, False, {}, {})

    @property
    def layout(self) -> Layout:
        """Which column each of the reader's fields becomes."""
        return self._layout

    def decode(self, records: RecordColumns) -> EventColumns:
        """Decode the records' values.

        Returns:
            Columns of n rows. A null value's row is not ok and no error; every other row that is not ok has its error.

        Raises:
            RegistryUnavailableError: a writer's schema is not known yet and the registry does not answer.
        """
        given = records.value
        value = Spans(sealed(given.buffer), np.ascontiguousarray(given.start), np.ascontiguousarray(given.length))
        if self._transcoder is not None:
            value, errors = self._transcoder.transcode(value)
            value = Spans(sealed(value.buffer), value.start, value.length)
            ids = np.where(value.length < 0, np.int64(kernel.NO_VALUE), np.int64(0))
            snapshot = self._self_reading()
            frame = 0
        else:
            errors = []
            ids = kernel.frame_ids(value.buffer, value.start, value.length)
            frame = kernel.FRAME
            snapshot = self._known(_distinct(ids))
        entry = self._entries(ids, snapshot, errors)
        columns, error, error_at = _run(self._layout, snapshot, value, frame, entry)
        for row in np.flatnonzero(error):
            kind, text = describe(int(error[row]), snapshot.places.get(int(error_at[row]), ""))
            errors.append(RowError(int(row), STAGE, kind, text))
        errors.sort(key=lambda e: e.row)
        return EventColumns(columns, (entry >= 0) & (error == 0), tuple(errors))

    def _entries(self, ids: I64, snapshot: _Snapshot, errors: list[RowError]) -> I64:
        distinct, which = np.unique(ids, return_inverse=True) if len(_distinct(ids)) > 1 else (ids[:1], None)
        entries = np.array([snapshot.entries.get(int(i), -1) for i in distinct], np.int64)
        for i, entry in zip(distinct.tolist(), entries.tolist(), strict=True):
            if entry < 0 and i != kernel.NO_VALUE:
                kind, text = _FRAME_ERRORS.get(i) or snapshot.refused[i]
                errors += (RowError(int(row), STAGE, kind, text) for row in np.flatnonzero(ids == i))
        if which is None:
            return np.full(len(ids), entries[0] if len(entries) else -1, np.int64)
        result: I64 = entries[which]
        return result

    def _self_reading(self) -> _Snapshot:
        """Return the program that reads what the transcoder writes."""
        with self._lock:
            if 0 not in self._snapshot.entries:
                self._extend({0: self._program.add(self._reader, self._reader)}, {})
            return self._snapshot

    def _known(self, ids: list[int]) -> _Snapshot:
        """Return a snapshot that knows every id, compiling the new ones."""
        snapshot = self._snapshot
        new = [i for i in ids if i >= 0 and i not in snapshot.entries and i not in snapshot.refused]
        if not new:
            return snapshot
        unknown: dict[int, tuple[str, str]] = {}
        schemas = {}
        for i in new:
            try:
                schemas[i] = self._schemas.by_id(i)
            except UnknownSchemaError as e:
                unknown[i] = ("UnknownSchema", str(e))
            except SchemaError as e:
                unknown[i] = ("UnsupportedSchema", f"schema id {i}: {e}")
        with self._lock:
            entries, refused = {}, {}
            for i, schema in schemas.items():
                try:
                    entries[i] = self._program.add(shape_of(schema), self._reader)
                except SchemaError as e:
                    refused[i] = ("SchemaMismatch", f"schema id {i}: {e}")
            self._extend(entries, refused)
            snapshot = self._snapshot
        if not unknown:
            return snapshot
        refused = {**snapshot.refused, **unknown}
        return _Snapshot(
            snapshot.code,
            snapshot.constants,
            snapshot.places,
            snapshot.default_items,
            snapshot.uses_text_constants,
            snapshot.entries,
            refused,
        )

    def _extend(self, entries: Mapping[int, int], refused: Mapping[int, tuple[str, str]]) -> None:
        program, old = self._program, self._snapshot
        self._snapshot = _Snapshot(
            np.array(program.code, np.int64),
            np.frombuffer(bytes(program.constants), np.uint8),
            dict(program.places),
            program.default_items,
            program.uses_text_constants,
            {**old.entries, **entries},
            {**old.refused, **refused},
        )


_FRAME_ERRORS = {
    kernel.NO_MAGIC: ("BadMagic", "the value does not begin with a 0 byte and a schema id"),
    kernel.TOO_SHORT: ("NotFramed", "a value shorter than its 5-byte frame of a 0 byte and a schema id"),
}


def _distinct(ids: I64) -> list[int]:
    if len(ids) == 0:
        return []
    low, high = int(ids.min()), int(ids.max())
    if low == high:
        return [low]
    found: list[int] = np.unique(ids).tolist()
    return found


def _run(
    layout: Layout, snapshot: _Snapshot, value: Spans, frame: int, entry: I64
) -> tuple[dict[str, Column], U8, I64]:
    n = len(value)
    n_longs, n_doubles, n_spans = layout.count("long"), layout.count("double"), layout.count("span")
    n_strings, n_double_lists = layout.count("strings"), layout.count("doubles")
    buffer = value.buffer
    constants_at = np.full(n_spans + n_strings, len(buffer), np.int64)
    for c in layout.columns:
        if c.kind == "span" and c.is_enum:
            constants_at[c.slot] = 0
    if snapshot.uses_text_constants:
        buffer = sealed(np.concatenate((buffer, snapshot.constants)))
    longs, long_valid = np.empty((n_longs, n), np.int64), np.ones((n_longs, n), np.bool_)
    doubles, double_valid = np.empty((n_doubles, n)), np.ones((n_doubles, n), np.bool_)
    span_start, span_length = np.empty((n_spans, n), np.int64), np.empty((n_spans, n), np.int64)
    string_offsets = np.zeros((n_strings, n + 1), np.int64)
    double_offsets = np.zeros((n_double_lists, n + 1), np.int64)
    room = 4 * n + 64
    item_start = np.empty((n_strings, room if n_strings else 0), np.int64)
    item_length = np.empty_like(item_start)
    double_items = np.empty((n_double_lists, room if n_double_lists else 0))
    error, error_at = np.zeros(n, np.uint8), np.zeros(n, np.int64)
    start, length = value.start + frame, value.length - frame
    done = 0
    while True:
        done = kernel.decode(
            buffer,
            start,
            length,
            entry,
            snapshot.code,
            done,
            constants_at,
            snapshot.default_items,
            longs,
            doubles,
            span_start,
            span_length,
            long_valid,
            double_valid,
            string_offsets,
            item_start,
            item_length,
            double_offsets,
            double_items,
            error,
            error_at,
        )
        if done == n:
            break
        room = 2 * room + int(length[done]) + snapshot.default_items
        if n_strings:
            item_start, item_length = _grown(item_start, room), _grown(item_length, room)
        if n_double_lists:
            double_items = _grown(double_items, room)
    columns: dict[str, Column] = {}
    for c in layout.columns:
        s = c.slot
        if c.kind == "long":
            columns[c.name] = Longs(longs[s], long_valid[s])
        elif c.kind == "double":
            columns[c.name] = Doubles(doubles[s], double_valid[s])
        elif c.kind == "span":
            columns[c.name] = Spans(snapshot.constants if c.is_enum else buffer, span_start[s], span_length[s])
        elif c.kind == "strings":
            used = int(string_offsets[s, n])
            items = Spans(buffer, item_start[s, :used], item_length[s, :used])
            columns[c.name] = StringLists(string_offsets[s], items)
        else:
            columns[c.name] = DoubleLists(double_offsets[s], double_items[s, : int(double_offsets[s, n])])
    return columns, error, error_at


def _grown(items: np.ndarray[Any, Any], room: int) -> Any:
    more = np.empty((items.shape[0], room), items.dtype)
    more[:, : items.shape[1]] = items
    return more
