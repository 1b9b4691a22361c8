"""Compiled loops that lay cells end to end in the native protocol's form; no Python object per cell."""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.compiling import njit
from fluvial.records import I64, U8, DoubleLists, Spans, StringLists
from fluvial.schemas.columns import sealed

# The native protocol's length of a value that is "not set": the cell stays as it is; null would write a tombstone.
UNSET = -2


@njit(cache=True, nogil=True)
def _put(out, at, buffer, start, length, rows, length_bytes, tail):
    """Write one cell per row at ``at`` (length, bytes, ``tail`` zero bytes) and advance ``at``."""
    for i in range(len(rows)):
        a, n, p = start[rows[i]], length[rows[i]], at[i]
        for b in range(length_bytes):
            out[p + b] = (n >> (8 * (length_bytes - 1 - b))) & 0xFF
        p += length_bytes
        for j in range(n):
            out[p + j] = buffer[a + j]
        p += max(n, 0)
        for b in range(tail):
            out[p + b] = 0
        at[i] = p + tail


@njit(cache=True, nogil=True)
def _put_items(out, at, offsets, buffer, start, length):
    """Write one list cell per row at ``at``: int32 count, then each item with its int32 length."""
    for i in range(len(offsets) - 1):
        p, count = at[i], offsets[i + 1] - offsets[i]
        for b in range(4):
            out[p + b] = (count >> (8 * (3 - b))) & 0xFF
        p += 4
        for k in range(offsets[i], offsets[i + 1]):
            a, n = start[k], length[k]
            for b in range(4):
                out[p + b] = (n >> (8 * (3 - b))) & 0xFF
            p += 4
            for j in range(n):
                out[p + j] = buffer[a + j]
            p += n


def rows_as_bytes(prefix: bytes, cells: Sequence[Spans], rows: I64) -> Spans:
    """Return for each of the given rows: ``prefix``, then every cell with its int32 length; one buffer, end to end."""
    return _joined(prefix, cells, rows, 4, 0)


def composite_keys(cells: Sequence[Spans], rows: I64) -> Spans:
    """Return partition keys as the token function takes them.

    One component is its bytes; several are each framed by a uint16 length and a zero byte (Cassandra's CompositeType).
    """
    if len(cells) == 1:
        return _joined(b"", cells, rows, 0, 0)
    return _joined(b"", cells, rows, 2, 1)


def string_list_cells(lists: StringLists) -> Spans:
    """Return lists of strings as CQL cells."""
    return _list_cells(lists.offsets, lists.items)


def double_list_cells(lists: DoubleLists) -> Spans:
    """Return lists of doubles as CQL cells."""
    return _list_cells(lists.offsets, fixed_width(lists.items, ">f8"))


def fixed_width(values: NDArray[Any], dtype: str) -> Spans:
    """Return numbers in a big-endian dtype as spans of that width."""
    n, width = len(values), np.dtype(dtype).itemsize
    buffer = np.ascontiguousarray(values, dtype).view(np.uint8)
    return Spans(sealed(buffer), np.arange(n, dtype=np.int64) * width, np.full(n, width, np.int64))


def _joined(prefix: bytes, cells: Sequence[Spans], rows: I64, length_bytes: int, tail: int) -> Spans:
    size = np.full(len(rows), len(prefix) + len(cells) * (length_bytes + tail), np.int64)
    for c in cells:
        size += np.maximum(c.length[rows], 0)
    end = np.cumsum(size)
    start = end - size
    out = np.empty(int(end[-1]) if len(end) else 0, np.uint8)
    at = start.copy()
    if prefix:
        _put(out, at, *_arrays(_same(prefix, len(rows))), np.arange(len(rows), dtype=np.int64), 0, 0)
    for c in cells:
        _put(out, at, *_arrays(c), rows, length_bytes, tail)
    return Spans(out, start, size)


def _list_cells(offsets: I64, items: Spans) -> Spans:
    wide = np.zeros(len(items) + 1, np.int64)
    np.cumsum(items.length + 4, out=wide[1:])
    size = 4 + wide[offsets[1:]] - wide[offsets[:-1]]
    end = np.cumsum(size)
    out = np.empty(int(end[-1]) if len(end) else 0, np.uint8)
    _put_items(out, end - size, np.ascontiguousarray(offsets), *_arrays(items))
    return Spans(sealed(out), end - size, size)


def _same(text: bytes, n: int) -> Spans:
    return Spans(np.frombuffer(text, np.uint8), np.zeros(n, np.int64), np.full(n, len(text), np.int64))


def _arrays(spans: Spans) -> tuple[U8, I64, I64]:
    return sealed(spans.buffer), np.ascontiguousarray(spans.start), np.ascontiguousarray(spans.length)
