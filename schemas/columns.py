"""Columns from and to Python values and Arrow arrays."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from fluvial.errors import SchemaError
from fluvial.records import F64, I64, U8, Column, DoubleLists, Doubles, Longs, Mask, Spans, StringLists
from fluvial.schemas.layout import ColumnSpec


def sealed(buffer: U8) -> U8:
    """Return a contiguous read-only view: numba compiles a kernel anew for each of writable, read-only and strided."""
    view = np.ascontiguousarray(buffer).view()
    view.flags.writeable = False
    return view


def spans_from_strings(strings: Sequence[str | bytes | None] | pa.Array | pa.ChunkedArray) -> Spans:
    """Return strings (or bytes; None is null) as spans, in UTF-8. Arrow's large strings and binaries are not copied."""
    if isinstance(strings, pa.Array | pa.ChunkedArray):
        return _spans_from_arrow(strings)
    parts = [None if s is None else s if isinstance(s, bytes) else s.encode() for s in strings]
    length = np.fromiter((-1 if p is None else len(p) for p in parts), np.int64, len(parts))
    width = np.maximum(length, 0)
    buffer = np.frombuffer(b"".join(p for p in parts if p), np.uint8)
    return Spans(buffer, np.where(length < 0, 0, np.cumsum(width) - width), length)


def repeated(text: str | bytes | None, n: int) -> Spans:
    """Return one string n times, sharing its bytes."""
    one = spans_from_strings([text])
    return Spans(one.buffer, np.zeros(n, np.int64), np.full(n, one.length[0], np.int64))


def concat_spans(parts: Sequence[Spans]) -> Spans:
    """Join spans end to end; buffers that several parts share are kept once."""
    buffers: dict[int, tuple[int, U8]] = {}
    total = 0
    starts = []
    for p in parts:
        if id(p.buffer) not in buffers:
            buffers[id(p.buffer)] = (total, p.buffer)
            total += len(p.buffer)
        starts.append(p.start + buffers[id(p.buffer)][0])
    joined = [b for _, b in buffers.values()]
    if not joined:
        return Spans(np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
    buffer = joined[0] if len(joined) == 1 else np.concatenate(joined)
    return Spans(buffer, np.concatenate(starts), np.concatenate([p.length for p in parts]))


def doubles(values: ArrayLike, valid: Mask | None = None) -> Doubles:
    """Return doubles; ``valid`` defaults to all true."""
    numbers = np.ascontiguousarray(values, np.float64)
    mask = np.ones(len(numbers), np.bool_) if valid is None else valid
    return Doubles(np.where(mask, numbers, 0.0), mask) if valid is not None else Doubles(numbers, mask)


def longs(values: ArrayLike, valid: Mask | None = None) -> Longs:
    """Return longs; ``valid`` defaults to all true."""
    numbers = np.ascontiguousarray(values, np.int64)
    mask = np.ones(len(numbers), np.bool_) if valid is None else valid
    return Longs(np.where(mask, numbers, 0), mask) if valid is not None else Longs(numbers, mask)


def string_lists(lists: Sequence[Sequence[str]]) -> StringLists:
    """Return lists of strings as columns."""
    offsets = np.concatenate(([0], np.cumsum([len(x) for x in lists]))).astype(np.int64)
    return StringLists(offsets, spans_from_strings([s for x in lists for s in x]))


def double_lists(lists: Sequence[Sequence[float]]) -> DoubleLists:
    """Return lists of doubles as columns."""
    offsets = np.concatenate(([0], np.cumsum([len(x) for x in lists]))).astype(np.int64)
    return DoubleLists(offsets, np.array([v for x in lists for v in x], np.float64))


def column_from_arrow(array: pa.Array | pa.ChunkedArray, spec: ColumnSpec) -> Column:
    """Return an Arrow array as the column of a field.

    Timestamps become the epoch's milliseconds, dates its days, dictionaries their values.

    Raises:
        SchemaError: the array's type does not fit the field, or a value would be changed by the conversion.
    """
    array = _one(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        match spec.kind:
            case "span":
                return _spans_from_arrow(array)
            case "double":
                return _doubles_from_arrow(array)
            case "long":
                return _longs_from_arrow(array)
            case "strings":
                offsets, items = _list_parts(array)
                return StringLists(offsets, _spans_from_arrow(items))
            case "doubles":
                offsets, items = _list_parts(array)
                return DoubleLists(offsets, _doubles_from_arrow(items).values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise SchemaError(f"field {spec.name}: {array.type} does not fit: {e}", hint="convert the column") from None


def column_to_arrow(column: Column) -> pa.Array:
    """Return a column as an Arrow array: string, double, int64, or lists of them; numbers are not copied."""
    match column:
        case Spans():
            return spans_to_arrow(column)
        case Doubles() | Longs():
            mask = None if column.valid.all() else ~column.valid
            return pa.array(column.values, mask=mask)
        case StringLists():
            return pa.ListArray.from_arrays(pa.array(column.offsets.astype(np.int32)), spans_to_arrow(column.items))
        case DoubleLists():
            return pa.ListArray.from_arrays(pa.array(column.offsets.astype(np.int32)), pa.array(column.items))


def spans_to_arrow(spans: Spans, kind: pa.DataType | None = None) -> pa.Array:
    """Return spans as an Arrow array of ``large_string`` (or ``large_binary``), gathered into a buffer of their own."""
    n = len(spans)
    valid = spans.length >= 0
    width = np.where(valid, spans.length, 0)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(width, out=offsets[1:])
    # The bytes of row i are at start[i], start[i] + 1, …: one index per byte, made by a running sum of steps.
    index = np.repeat(spans.start - offsets[:-1], width) + np.arange(offsets[-1])
    data = spans.buffer[index]
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        kind or pa.large_string(), n, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)], int((~valid).sum())
    )


def _one(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        return array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    return array


def _spans_from_arrow(array: pa.Array | pa.ChunkedArray) -> Spans:
    array = _one(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    wide = pa.large_binary() if pa.types.is_binary(array.type) else pa.large_string()
    if not (pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)):
        array = array.cast(wide)
    _, offsets_buffer, data = array.buffers()
    n = len(array)
    if n == 0:
        return Spans(np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
    offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + n + 1]
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    length = np.diff(offsets)
    if array.null_count:
        length = np.where(_valid(array), length, -1)
    return Spans(buffer, offsets[:-1].copy(), length)


def _valid(array: pa.Array) -> Mask:
    mask: Mask = array.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


def _doubles_from_arrow(array: pa.Array) -> Doubles:
    array = array.cast(pa.float64())
    valid = _valid(array)
    values: F64 = array.fill_null(0.0).to_numpy(zero_copy_only=False)
    return Doubles(np.ascontiguousarray(values, np.float64), valid)


def _longs_from_arrow(array: pa.Array) -> Longs:
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("ms", array.type.tz), safe=False)
    elif pa.types.is_date(array.type):
        array = array.cast(pa.date32()).cast(pa.int32())
    array = array.cast(pa.int64())
    valid = _valid(array)
    values: I64 = array.fill_null(0).to_numpy(zero_copy_only=False)
    return Longs(np.ascontiguousarray(values, np.int64), valid)


def _list_parts(array: pa.Array) -> tuple[I64, pa.Array]:
    """Return a list array's offsets (from 0) and items; a null list is an empty one."""
    if not pa.types.is_large_list(array.type):
        array = array.cast(pa.large_list(array.type.value_type))
    count = np.diff(np.asarray(array.offsets))
    if array.null_count:
        count = np.where(_valid(array), count, 0)
    return np.concatenate(([0], np.cumsum(count))).astype(np.int64), array.flatten()
