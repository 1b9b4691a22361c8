"""Decoded columns as CQL cells: big-endian bytes by numpy, as spans of one buffer per column."""

import numpy as np

from fluvial.errors import SinkError
from fluvial.records import Column, DoubleLists, Doubles, Longs, Mask, Spans, StringLists
from fluvial.sinks.packing import UNSET, double_list_cells, fixed_width, string_list_cells

_LONGS = {"bigint": ">i8", "timestamp": ">i8", "int": ">i4", "smallint": ">i2", "tinyint": ">i1"}
_DOUBLES = {"double": ">f8", "float": ">f4"}
_TEXTS = frozenset({"text", "varchar", "ascii", "blob"})
# CQL dates are days since −2³¹ days before the epoch.
_EPOCH_DATE = 1 << 31


def cells(column: Column, cql_type: str) -> Spans:
    """Return a column's values as cells of a CQL type; a null is a cell that is not set (length −2).

    ``Longs`` become bigint, int, smallint, tinyint, timestamp (epoch ms), date (days since the epoch), boolean, double
    or float; ``Doubles`` double or float; ``Spans`` text, ascii or blob; lists become ``list<text>``, ``list<double>``.

    Raises:
        SinkError: the column has no form in that type, or a number does not fit into it.
    """
    kind = cql_type.removeprefix("frozen<").removesuffix(">") if cql_type.startswith("frozen<") else cql_type
    match column:
        case Longs() if kind in _LONGS:
            _must_fit(column, _LONGS[kind], kind)
            return _unset(fixed_width(column.values, _LONGS[kind]), column.valid)
        case Longs() if kind == "date":
            days = column.values + _EPOCH_DATE
            _must_fit(Longs(days, column.valid), ">u4", kind)
            return _unset(fixed_width(days, ">u4"), column.valid)
        case Longs() if kind == "boolean":
            return _unset(fixed_width(column.values != 0, "u1"), column.valid)
        case Longs() | Doubles() if kind in _DOUBLES:
            return _unset(fixed_width(column.values, _DOUBLES[kind]), column.valid)
        case Spans() if kind in _TEXTS:
            return Spans(column.buffer, column.start, np.where(column.length < 0, UNSET, column.length))
        case StringLists() if kind == "list<text>":
            return string_list_cells(column)
        case DoubleLists() if kind == "list<double>":
            return double_list_cells(column)
    raise SinkError(
        f"a column of {type(column).__name__} cannot be written as {cql_type}",
        hint="correct the table's column type, or the field's in the schema",
    )


def _unset(found: Spans, valid: Mask) -> Spans:
    if valid.all():
        return found
    return Spans(found.buffer, found.start, np.where(valid, found.length, UNSET))


def _must_fit(column: Longs, dtype: str, kind: str) -> None:
    bounds = np.iinfo(np.dtype(dtype))
    if bounds.bits == 64 or not len(column):
        return
    for extreme in (int(column.values.min()), int(column.values.max())):
        if not bounds.min <= extreme <= bounds.max:
            raise SinkError(f"{extreme} does not fit into CQL's {kind}", hint="declare the table's column as bigint")
