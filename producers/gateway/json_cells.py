"""JSON values → the column of a field, strictly: a number is no text, a text no number, and each cell stands for itself."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from fluvial.producers.cells import column_of
from fluvial.producers.fields import Field
from fluvial.producers.rejections import Faults
from fluvial.producers.times import TimeRules
from fluvial.records import Column, Mask

TIMES = TimeRules(None, "ms")
CALLED = {
    "text": "a text", "number": "a number", "integer": "a whole number of 64 bits",
    "time": "a time (RFC 3339 text or epoch ms)",
    "texts": "a list of texts", "numbers": "a list of numbers",
}  # fmt: skip


def column_from_json(cells: list[Any], field: Field, faults: Faults) -> Column:
    """Return n values (None is null or missing) as a column; those that do not fit are marked.

    Whether a value is good does not depend on the others of its batch.
    """
    try:
        array = pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        array = None
    # Arrow takes true among numbers for 1.
    mixed = field.kind == "numbers" or (field.kind in ("number", "integer", "time") and bool in set(map(type, cells)))
    if array is None or mixed or not _fits(array.type, field):
        array, wrong = _alike(cells, field)
        faults.mark(wrong, f"{field.name}: not {CALLED[field.kind]}")
    return column_of(array, field, TIMES, (), faults, field.name)


def _fits(kind: pa.DataType, field: Field) -> bool:
    """Whether an array of that type holds only what the field takes from JSON."""
    t = pa.types
    match field.kind:
        case "text" | "time" if t.is_string(kind):
            return True
        case "integer" | "time" | "number" if t.is_integer(kind):
            return True
        case "number":
            return bool(t.is_floating(kind))
        case "texts" | "numbers" if t.is_list(kind):
            item = kind.value_type
            return bool(t.is_string(item) if field.kind == "texts" else t.is_floating(item) or t.is_integer(item))
    return bool(t.is_null(kind))


def _alike(cells: list[Any], field: Field) -> tuple[pa.Array, Mask]:
    """Return cells of any types as an array of the field's own type, null and marked where they do not fit."""
    kinds: dict[str, tuple[pa.DataType, Callable[[Any], Any]]] = {
        "text": (pa.string(), _text), "time": (pa.string(), _time), "integer": (pa.int64(), _whole),
        "number": (pa.float64(), _number),
        "texts": (pa.list_(pa.string()), lambda v: [_text(x) for x in _list(v)]),
        "numbers": (pa.list_(pa.float64()), lambda v: [_number(x) for x in _list(v)]),
    }  # fmt: skip
    kind, convert = kinds[field.kind]
    wrong = np.zeros(len(cells), np.bool_)
    values: list[Any] = []
    for i, cell in enumerate(cells):
        try:
            values.append(None if cell is None else convert(cell))
        except (TypeError, ValueError, OverflowError):
            values.append(None)
            wrong[i] = True
    return pa.array(values, kind), wrong


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value


def _time(value: Any) -> str:
    return str(_whole(value)) if isinstance(value, int) else _text(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value
