"""Confluent-framed Avro from columns, no Python object per row."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fluvial.errors import SchemaError
from fluvial.records import F64, I64, U8, Column, DoubleLists, Doubles, Longs, Mask, Spans, StringLists
from fluvial.schemas import encode_kernel as kernel
from fluvial.schemas.columns import sealed, spans_from_strings
from fluvial.schemas.decode_kernel import FRAME
from fluvial.schemas.layout import ColumnSpec, Layout, layout_of
from fluvial.schemas.shapes import shape_of

ROWS_AT_ONCE = 8192
_INTS = np.iinfo(np.int32)
_FORMS: dict[str, type] = {
    "long": Longs,
    "double": Doubles,
    "span": Spans,
    "strings": StringLists,
    "doubles": DoubleLists,
}


class Encoder:
    """Encodes columns as records of one schema. Safe to share between threads; releases the interpreter's lock."""

    def __init__(self, schema: Any, schema_id: int) -> None:
        """Prepare an encoder that frames its data with ``schema_id``.

        Raises:
            SchemaError: the schema is invalid or has a field without a native columnar form.
        """
        self.schema_id = schema_id
        self._layout = layout_of(shape_of(schema))
        for c in self._layout.columns:
            if not c.native:
                raise SchemaError(
                    f"field {c.name} cannot be written from columns", hint="use a plain type, or it and null"
                )
        self._symbols = {
            c.name: spans_from_strings(list(c.item.symbols)) for c in self._layout.columns if c.item.kind == "enum"
        }

    @property
    def layout(self) -> Layout:
        """Which column each field is written from."""
        return self._layout

    def encode(self, columns: Mapping[str, Column]) -> Spans:
        """Write the rows one after another into one buffer; strings are taken to be UTF-8.

        Raises:
            SchemaError: a column is missing, unknown, of another kind or length, or holds a value its field can't.
        """
        n = self._check(columns)
        size = np.full(n, FRAME, np.int64)
        indices: dict[str, Longs] = {}
        for c in self._layout.columns:
            column = columns[c.name]
            if c.item.kind == "enum" and c.kind == "span":
                indices[c.name] = column = self._indices(c, column)
            _add_size(c, column, size)
        end = np.cumsum(size)
        start = end - size
        out = np.empty(int(end[-1]) if n else 0, np.uint8)
        cursor = start.copy()
        writers = [_writer(c, indices.get(c.name, columns[c.name])) for c in self._layout.columns]
        for first in range(0, n, ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, n)
            kernel.put_frames(out, cursor, first, last, self.schema_id)
            for write, arguments in writers:
                write(out, cursor, first, last, *arguments)
        return Spans(out, start, size)

    def _check(self, columns: Mapping[str, Column]) -> int:
        names = {c.name for c in self._layout.columns}
        if names != set(columns):
            missing, unknown = sorted(names - set(columns)), sorted(set(columns) - names)
            raise SchemaError(f"columns {missing} are missing, {unknown} unknown", hint="give one column per field")
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise SchemaError(f"columns of different lengths {sorted(lengths)}", hint="give one value per row")
        for c in self._layout.columns:
            _check_column(c, columns[c.name])
        return lengths.pop() if lengths else 0

    def _indices(self, c: ColumnSpec, column: Column) -> Longs:
        assert isinstance(column, Spans)
        s = self._symbols[c.name]
        text = sealed(column.buffer)
        found = kernel.symbol_indices(text, column.start, column.length, sealed(s.buffer), s.start, s.length)
        if (found == -2).any():
            row = int(np.argmax(found == -2))
            raise SchemaError(
                f"field {c.name}, row {row}: {column.bytes_at(row)!r} is no symbol of {c.item.name}",
                hint=f"symbols are {', '.join(c.item.symbols)}",
            )
        return Longs(found, found >= 0)


def _check_column(c: ColumnSpec, column: Column) -> None:
    if not isinstance(column, _FORMS[c.kind]):
        raise SchemaError(
            f"field {c.name} takes {_FORMS[c.kind].__name__}, not {type(column).__name__}", hint="convert the column"
        )
    null = _nulls(column)
    if c.null_index < 0 and null is not None and null.any():
        raise SchemaError(
            f"field {c.name}, row {int(np.argmax(null))}: null, but the field is not nullable",
            hint="give a value or make the field nullable",
        )
    if c.item.kind == "int" and isinstance(column, Longs):
        beyond = (column.values < _INTS.min) | (column.values > _INTS.max)
        if beyond.any():
            row = int(np.argmax(beyond))
            raise SchemaError(f"field {c.name}, row {row}: {column.values[row]} is beyond an int", hint="use a long")
    if c.item.kind == "fixed" and isinstance(column, Spans):
        wrong = (column.length >= 0) & (column.length != c.item.size)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise SchemaError(
                f"field {c.name}, row {row}: {column.length[row]} bytes in a fixed of {c.item.size}", hint="use bytes"
            )


def _nulls(column: Column) -> Mask | None:
    if isinstance(column, Longs | Doubles):
        return ~column.valid
    if isinstance(column, Spans):
        return column.length < 0
    if isinstance(column, StringLists):
        return column.items.length < 0
    return None


def _words(c: ColumnSpec, values: F64 | I64) -> U8:
    kind = {"float": "<f4", "boolean": "u1"}.get(c.item.kind, "<f8")
    # A value behind a null may be anything; out of range for float32 it would warn.
    with np.errstate(over="ignore", invalid="ignore"):
        packed = np.ascontiguousarray(values.astype(kind))
    return packed.view(np.uint8).reshape(len(packed), packed.dtype.itemsize)


def _width(c: ColumnSpec) -> int:
    return {"float": 4, "boolean": 1}.get(c.item.kind, 8)


def _add_size(c: ColumnSpec, column: Column, size: I64) -> None:
    if isinstance(column, Longs) and c.item.kind != "boolean":
        kernel.size_longs(column.values, column.valid, c.null_index, size)
    elif isinstance(column, Longs | Doubles):
        kernel.size_words(column.valid, _width(c), c.null_index, size)
    elif isinstance(column, Spans) and c.item.kind == "fixed":
        kernel.size_words(column.length >= 0, c.item.size, c.null_index, size)
    elif isinstance(column, Spans):
        kernel.size_spans(column.length, c.null_index, size)
    elif isinstance(column, StringLists):
        kernel.size_string_lists(column.offsets, column.items.length, size)
    else:
        kernel.size_word_lists(column.offsets, _width(c), size)


def _writer(c: ColumnSpec, column: Column) -> tuple[Any, tuple[Any, ...]]:
    if isinstance(column, Longs) and c.item.kind != "boolean":
        return kernel.put_longs, (column.values, column.valid, c.null_index)
    if isinstance(column, Longs | Doubles):
        return kernel.put_words, (_words(c, column.values), column.valid, c.null_index)
    if isinstance(column, Spans):
        prefixed = int(c.item.kind != "fixed")
        return kernel.put_spans, (sealed(column.buffer), column.start, column.length, c.null_index, prefixed)
    if isinstance(column, StringLists):
        items = column.items
        return kernel.put_string_lists, (column.offsets, sealed(items.buffer), items.start, items.length)
    return kernel.put_word_lists, (column.offsets, _words(c, column.items))
