"""CQL types and values as Arrow has them, and keys from text."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from fluvial.errors import FluvialError

UTC_MS = pa.timestamp("ms", tz="UTC")

_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "varchar": pa.string(),
    "ascii": pa.string(),
    "bigint": pa.int64(),
    "counter": pa.int64(),
    "int": pa.int32(),
    "smallint": pa.int16(),
    "tinyint": pa.int8(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "timestamp": UTC_MS,
    "date": pa.date32(),
    "blob": pa.binary(),
    "list<text>": pa.list_(pa.string()),
    "list<double>": pa.list_(pa.float64()),
    "list<bigint>": pa.list_(pa.int64()),
}
_PARSERS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "varchar": str,
    "ascii": str,
    "bigint": int,
    "int": int,
    "smallint": int,
    "tinyint": int,
    "double": float,
    "date": date.fromisoformat,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


class KeyTextError(FluvialError):
    """A key's text does not fit its column's type."""


def arrow_type(cql_type: str) -> pa.DataType:
    """Return the Arrow type of a CQL type; what has none is text."""
    return _TYPES.get(_thawed(cql_type), pa.string())


def arrow_array(values: Sequence[Any], cql_type: str) -> pa.Array:
    """Return the driver's Python values of one column as an Arrow array; naive datetimes are UTC."""
    kind = _thawed(cql_type)
    if kind == "date":
        return pa.array([None if v is None else v.date() for v in values], pa.date32())
    if kind in _TYPES:
        return pa.array(values, _TYPES[kind])
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def key_value(text: str, cql_type: str, name: str) -> Any:
    """Return the Python value of a key column from text.

    Raises:
        KeyTextError: it is no value of that type.
    """
    parse = _PARSERS.get(cql_type)
    if parse is None:
        raise KeyTextError(f"{name} is a {cql_type}, which cannot be given as text", hint="use cqlsh for this table")
    try:
        return parse(text)
    except (ValueError, KeyError):
        raise KeyTextError(f"{name} is a {cql_type}, which {text!r} is not", hint="correct the key") from None


def _thawed(cql_type: str) -> str:
    return cql_type[len("frozen<") : -1] if cql_type.startswith("frozen<") else cql_type
