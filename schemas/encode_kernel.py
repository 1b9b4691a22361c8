"""The loops that write columns as Avro data: first each row's size is summed, then columns write at the rows' cursors.

``null`` is the index of null in the field's union (0 or 1), −1 for a field that can't be null. ``cursor[row]`` is where
row's next byte goes in ``out``; every writer advances it.
"""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import numpy as np

from fluvial.compiling import njit
from fluvial.records import I64, U8, Mask


@njit(nogil=True)
def _width(value):
    rest = np.uint64((value << 1) ^ (value >> 63))
    width = 1
    while rest >= np.uint64(128):
        rest >>= np.uint64(7)
        width += 1
    return width


@njit(nogil=True)
def _put(out, at, value):
    rest = np.uint64((value << 1) ^ (value >> 63))
    while rest >= np.uint64(128):
        out[at] = np.uint8((rest & np.uint64(127)) | np.uint64(128))
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@njit(nogil=True)
def _copy(out, at, buffer, start, length):
    for i in range(length):
        out[at + i] = buffer[start + i]
    return at + length


@njit(cache=True, nogil=True)
def size_longs(values: I64, valid: Mask, null: int, size: I64) -> None:
    """Add the widths of a long column (also of enum indices)."""
    for row in range(len(values)):
        if null < 0:
            size[row] += _width(values[row])
        elif valid[row]:
            size[row] += 1 + _width(values[row])
        else:
            size[row] += 1


@njit(cache=True, nogil=True)
def size_words(valid: Mask, width: int, null: int, size: I64) -> None:
    """Add the widths of a column of fixed-width values: doubles, floats, booleans."""
    for row in range(len(valid)):
        if null < 0:
            size[row] += width
        else:
            size[row] += 1 + (width if valid[row] else 0)


@njit(cache=True, nogil=True)
def size_spans(length: I64, null: int, size: I64) -> None:
    """Add the widths of a column of strings."""
    for row in range(len(length)):
        if null >= 0:
            size[row] += 1
        if length[row] >= 0:
            size[row] += _width(length[row]) + length[row]


@njit(cache=True, nogil=True)
def size_string_lists(offsets: I64, length: I64, size: I64) -> None:
    """Add the widths of a column of string lists, each one block and the end of blocks."""
    for row in range(len(offsets) - 1):
        count = offsets[row + 1] - offsets[row]
        width = 1
        if count > 0:
            width += _width(count)
            for i in range(offsets[row], offsets[row + 1]):
                width += _width(length[i]) + length[i]
        size[row] += width


@njit(cache=True, nogil=True)
def size_word_lists(offsets: I64, word: int, size: I64) -> None:
    """Add the widths of a column of lists of fixed-width numbers."""
    for row in range(len(offsets) - 1):
        count = offsets[row + 1] - offsets[row]
        size[row] += 1 + (_width(count) + word * count if count > 0 else 0)


@njit(cache=True, nogil=True)
def put_frames(out: U8, cursor: I64, first: int, last: int, schema_id: int) -> None:
    """Write the 0 byte and the schema id of rows ``first`` to ``last``."""
    for row in range(first, last):
        at = cursor[row]
        out[at] = 0
        out[at + 1] = np.uint8((schema_id >> 24) & 255)
        out[at + 2] = np.uint8((schema_id >> 16) & 255)
        out[at + 3] = np.uint8((schema_id >> 8) & 255)
        out[at + 4] = np.uint8(schema_id & 255)
        cursor[row] = at + 5


@njit(cache=True, nogil=True)
def put_longs(out: U8, cursor: I64, first: int, last: int, values: I64, valid: Mask, null: int) -> None:
    """Write a column of longs, ints or enum indices."""
    for row in range(first, last):
        at = cursor[row]
        if null >= 0:
            out[at] = 2 * (1 - null) if valid[row] else 2 * null
            at += 1
        if null < 0 or valid[row]:
            at = _put(out, at, values[row])
        cursor[row] = at


@njit(cache=True, nogil=True)
def put_words(out: U8, cursor: I64, first: int, last: int, words: U8, valid: Mask, null: int) -> None:
    """Write a column of fixed-width values; ``words`` is uint8[n, width], little-endian."""
    width = words.shape[1]
    for row in range(first, last):
        at = cursor[row]
        if null >= 0:
            out[at] = 2 * (1 - null) if valid[row] else 2 * null
            at += 1
        if null < 0 or valid[row]:
            for i in range(width):
                out[at + i] = words[row, i]
            at += width
        cursor[row] = at


@njit(cache=True, nogil=True)
def put_spans(
    out: U8, cursor: I64, first: int, last: int, buffer: U8, start: I64, length: I64, null: int, prefixed: int
) -> None:
    """Write a column of strings or bytes (``prefixed`` 1), or of fixed (0)."""
    for row in range(first, last):
        at = cursor[row]
        n = length[row]
        if null >= 0:
            out[at] = 2 * (1 - null) if n >= 0 else 2 * null
            at += 1
        if n >= 0:
            if prefixed == 1:
                at = _put(out, at, n)
            at = _copy(out, at, buffer, start[row], n)
        cursor[row] = at


@njit(cache=True, nogil=True)
def put_string_lists(
    out: U8, cursor: I64, first: int, last: int, offsets: I64, buffer: U8, start: I64, length: I64
) -> None:
    """Write a column of string lists."""
    for row in range(first, last):
        at = cursor[row]
        count = offsets[row + 1] - offsets[row]
        if count > 0:
            at = _put(out, at, count)
            for i in range(offsets[row], offsets[row + 1]):
                at = _put(out, at, length[i])
                at = _copy(out, at, buffer, start[i], length[i])
        out[at] = 0
        cursor[row] = at + 1


@njit(cache=True, nogil=True)
def put_word_lists(out: U8, cursor: I64, first: int, last: int, offsets: I64, words: U8) -> None:
    """Write a column of lists of fixed-width numbers; ``words`` is uint8[items, width]."""
    width = words.shape[1]
    for row in range(first, last):
        at = cursor[row]
        count = offsets[row + 1] - offsets[row]
        if count > 0:
            at = _put(out, at, count)
            for item in range(offsets[row], offsets[row + 1]):
                for i in range(width):
                    out[at + i] = words[item, i]
                at += width
        out[at] = 0
        cursor[row] = at + 1


@njit(cache=True, nogil=True)
def symbol_indices(buffer: U8, start: I64, length: I64, symbols: U8, symbol_start: I64, symbol_length: I64) -> I64:
    """Return each string's place among an enum's symbols: −1 for null, −2 for no such symbol."""
    found = np.full(len(start), -1, np.int64)
    for row in range(len(start)):
        if length[row] < 0:
            continue
        found[row] = -2
        for s in range(len(symbol_start)):
            if symbol_length[s] != length[row]:
                continue
            same = True
            for i in range(length[row]):
                if buffer[start[row] + i] != symbols[symbol_start[s] + i]:
                    same = False
                    break
            if same:
                found[row] = s
                break
    return found
