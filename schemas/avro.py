"""Avro files, and single framed records: for the few (dead letters, checkpoints) that are not worth columns."""

import io
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastavro

from fluvial.errors import SchemaError

SCHEMA_DIR = Path(__file__).parent


@cache
def load_schema(name: str, directory: Path = SCHEMA_DIR) -> dict[str, Any]:
    """Return the schema of a full Avro name, e.g. ``fluvial.iot.SensorReading``, from a directory of ``.avsc`` files.

    A file is named after its schema: in full, or without the leading ``fluvial.``.

    Raises:
        SchemaError: no such file, not JSON, or it declares another name.
    """
    path = next((p for p in _paths(name, directory) if p.exists()), None)
    if path is None:
        raise SchemaError(f"no Avro file for {name} in {directory}", hint=f"add {name}.avsc")
    try:
        schema: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as e:
        raise SchemaError(f"{path}: {e}", hint="mend the JSON") from None
    namespace = schema.get("namespace", "")
    declared = schema.get("name", "")
    full = declared if "." in declared or not namespace else f"{namespace}.{declared}"
    if full != name:
        raise SchemaError(f"{path} declares {full}, not {name}", hint="name the file after its schema")
    return schema


def has_schema(name: str, directory: Path) -> bool:
    """Whether a directory has the Avro file of a name."""
    return any(path.exists() for path in _paths(name, directory))


def _paths(name: str, directory: Path) -> list[Path]:
    return [directory / f"{name}.avsc", directory / f"{name.removeprefix('fluvial.')}.avsc"]


def frame(schema_id: int) -> bytes:
    """Return the five bytes before a datum: 0 and the schema id, big-endian (Confluent's wire format)."""
    return struct.pack(">bI", 0, schema_id)


class DatumWriter:
    """Writes single framed records of one schema."""

    def __init__(self, schema: Any, schema_id: int) -> None:
        self._schema = fastavro.parse_schema(schema)
        self._frame = frame(schema_id)

    def write(self, datum: Mapping[str, Any]) -> bytes:
        """Return one framed record.

        Raises:
            SchemaError: the datum does not fit the schema.
        """
        out = io.BytesIO()
        out.write(self._frame)
        try:
            fastavro.schemaless_writer(out, self._schema, datum)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as e:
            raise SchemaError(
                f"a datum does not fit {self._schema['name']}: {e}", hint="compare it with the schema"
            ) from e
        return out.getvalue()


def read_datum(value: bytes, writer_schema: Any) -> Any:
    """Return one framed record as Python data, by its writer's schema.

    Only for records that fluvial wrote itself: strangers' bytes belong into a `fluvial.schemas.decoder.Decoder`.

    Raises:
        SchemaError: not framed or not of this schema.
    """
    _schema_id(value)
    try:
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(writer_schema), None)
    except (ValueError, EOFError, IndexError, KeyError) as e:
        raise SchemaError(f"cannot read a record: {type(e).__name__}: {e}", hint="check its writer's schema") from e


class DatumReader:
    """Reads single framed records as one reader's schema, whatever version of it they were written with.

    Times and dates come as the integers that Avro stores. Only for records that fluvial wrote itself, as `read_datum`.
    """

    def __init__(self, reader_schema: Any, schema_by_id: Callable[[int], Any]) -> None:
        self._plain = _plain(reader_schema)
        self._reader = fastavro.parse_schema(self._plain)
        self._schema_by_id = schema_by_id
        # Writer's and reader's schema; None where they are the same, which is faster.
        self._pairs: dict[int, tuple[Any, Any]] = {}

    def read(self, value: bytes) -> Any:
        """Return one framed record as Python data.

        Raises:
            SchemaError: not framed, of an unknown schema, or not readable as the reader's.
            RegistryUnavailableError: nobody could tell its schema.
        """
        schema_id = _schema_id(value)
        if schema_id not in self._pairs:
            plain = _plain(self._schema_by_id(schema_id))
            self._pairs[schema_id] = fastavro.parse_schema(plain), None if plain == self._plain else self._reader
        try:
            return fastavro.schemaless_reader(io.BytesIO(value[5:]), *self._pairs[schema_id])
        except Exception as e:  # fastavro raises whatever Python raised inside
            raise SchemaError(f"cannot read a record: {type(e).__name__}: {e}", hint="check its writer's schema") from e


def _schema_id(value: bytes) -> int:
    if len(value) < 5 or value[0] != 0:
        raise SchemaError("a value without its 5-byte frame", hint="it was not written in Confluent's wire format")
    (schema_id,) = struct.unpack_from(">I", value, 1)
    return int(schema_id)


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(n) for n in node]
    if not isinstance(node, dict):
        return node
    return {k: v if k == "default" else _plain(v) for k, v in node.items() if k != "logicalType"}
