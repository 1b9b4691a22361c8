"""Shapes that the native decoder does not read: fastavro resolves such rows and writes them anew as plain columns.

fastavro's own hazards are kept away: recursive and too deep schemas are refused (`fluvial.schemas.shapes`), and a
native program that only checks structure walks every datum first, so that lengths and counts are those of real bytes.
"""

import io
from decimal import Decimal
from threading import Lock
from typing import Any

import fastavro
import numpy as np

from fluvial.errors import SchemaError
from fluvial.records import RowError, Spans
from fluvial.schemas import decode_kernel as kernel
from fluvial.schemas.layout import ColumnSpec, Layout
from fluvial.schemas.program import Program, describe
from fluvial.schemas.shapes import shape_of
from fluvial.schemas.sources import SchemaSource, UnknownSchemaError

STAGE = "decode"
MAX_DATUM_BYTES = 1 << 20
_KINDS = {"long": "long", "double": "double"}


def columnar_schema(layout: Layout) -> dict[str, Any]:
    """Return the schema of a layout's columns in their plain form: longs, doubles, strings, bytes and lists of them."""
    fields = []
    for c in layout.columns:
        text = "bytes" if c.item.kind in {"bytes", "fixed"} else "string"
        plain: Any = _KINDS.get(c.kind, text)
        if c.kind in ("strings", "doubles"):
            plain = {"type": "array", "items": "double" if c.kind == "doubles" else text}
        fields.append({"name": c.name, "type": ["null", plain] if c.null_index >= 0 else plain})
    return {"type": "record", "name": "Columns", "fields": fields}


class Transcoder:
    """Turns framed values into unframed data of the columnar schema, row by row."""

    def __init__(self, reader_schema: Any, layout: Layout, schemas: SchemaSource) -> None:
        self._reader = _parsed(reader_schema)
        self._columnar = fastavro.parse_schema(columnar_schema(layout))
        self._columns = layout.columns
        self._schemas = schemas
        self._lock = Lock()
        self._writers: dict[int, Any] = {}
        self._skips: dict[int, Program] = {}

    def transcode(self, value: Spans) -> tuple[Spans, list[RowError]]:
        """Return the rows' data (length −1 where there is none) and the errors of bad rows.

        Raises:
            RegistryUnavailableError: a schema is not known yet and the registry does not answer.
        """
        ids = kernel.frame_ids(value.buffer, value.start, value.length)
        errors: list[RowError] = []
        parts: list[bytes | None] = []
        for row, schema_id in enumerate(ids.tolist()):
            try:
                parts.append(self._row(value, row, schema_id))
            except _BadRowError as e:
                parts.append(None)
                errors.append(RowError(row, STAGE, e.kind, e.text))
        length = np.array([-1 if p is None else len(p) for p in parts], np.int64)
        width = np.maximum(length, 0)
        joined = np.frombuffer(b"".join(p for p in parts if p), np.uint8)
        return Spans(joined, np.cumsum(width) - width, length), errors

    def _row(self, value: Spans, row: int, schema_id: int) -> bytes | None:
        if schema_id == kernel.NO_VALUE:
            return None
        if schema_id < 0:
            raise _BadRowError("NotFramed", "the value does not begin with a 0 byte and a schema id")
        self._learn(schema_id)
        start, length = int(value.start[row]) + kernel.FRAME, int(value.length[row]) - kernel.FRAME
        if length > MAX_DATUM_BYTES:
            raise _BadRowError("TooLong", f"a datum of {length:,} bytes; {MAX_DATUM_BYTES:,} are the limit")
        datum = value.buffer[start : start + length]
        self._check(schema_id, datum)
        try:
            event = fastavro.schemaless_reader(io.BytesIO(datum.tobytes()), self._writers[schema_id], self._reader)
            out = io.BytesIO()
            fastavro.schemaless_writer(out, self._columnar, {c.name: _plain(c, event[c.name]) for c in self._columns})
        except UnicodeDecodeError:
            raise _BadRowError("InvalidUtf8", "a string that is not UTF-8") from None
        except Exception as e:  # noqa: BLE001 - fastavro raises whatever Python raised inside
            raise _BadRowError("SchemaMismatch", f"{type(e).__name__}: {e}") from None
        return out.getvalue()

    def _learn(self, schema_id: int) -> None:
        if schema_id in self._writers:
            return
        try:
            schema = self._schemas.by_id(schema_id)
            program = Program(Layout(()))
            program.add_skip(shape_of(schema))
        except UnknownSchemaError as e:
            raise _BadRowError("UnknownSchema", str(e)) from None
        except SchemaError as e:
            raise _BadRowError("UnsupportedSchema", f"schema id {schema_id}: {e}") from None
        with self._lock:
            self._skips[schema_id] = program
            self._writers[schema_id] = _parsed(schema)

    def _check(self, schema_id: int, datum: np.ndarray[Any, Any]) -> None:
        one, none = np.zeros(1, np.int64), np.zeros((0, 1), np.int64)
        doubles, valid, error = np.zeros((0, 1)), np.zeros((0, 1), np.bool_), np.zeros(1, np.uint8)
        code = np.array(self._skips[schema_id].code, np.int64)
        length = np.array([len(datum)], np.int64)
        offsets = np.zeros((0, 2), np.int64)
        kernel.decode(
            datum, one, length, one, code, 0, one[:0], 0, none, doubles, none, none, valid, valid, offsets, none, none,
            offsets, doubles, error, one.copy(),
        )  # fmt: skip
        if error[0]:
            raise _BadRowError(*describe(int(error[0]), ""))


def _plain(column: ColumnSpec, value: Any) -> Any:
    """Return a value of fastavro's as the columnar schema takes it."""
    if column.kind in ("strings", "doubles"):
        return [_item(column, v) for v in value or ()]
    return None if value is None else _item(column, value)


def _item(column: ColumnSpec, value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)
        case bool():
            return int(value)
        # A default of bytes is a string whose code points are the bytes.
        case str() if column.item.kind in ("bytes", "fixed"):
            return value.encode("latin-1")
    return value


class _BadRowError(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


def _parsed(schema: Any) -> Any:
    return fastavro.parse_schema(_without_logical_types(schema))


def _without_logical_types(node: Any) -> Any:
    """Drop logical types but decimals: columns hold what they annotate, and fastavro would refuse far-off dates."""
    if isinstance(node, list):
        return [_without_logical_types(n) for n in node]
    if not isinstance(node, dict):
        return node
    dropped = "logicalType" in node and node["logicalType"] != "decimal"
    return {
        key: child if key in {"default", "aliases", "symbols"} else _without_logical_types(child)
        for key, child in node.items()
        if not (dropped and key == "logicalType") and not key.startswith("__")
    }
