"""Record headers, looked up in the bytes they came in."""

import numpy as np

from fluvial.compiling import njit
from fluvial.records import I64, U8, Longs, RecordColumns

# A tick is a record with a null value and the first of these (an instant, epoch ms); in rekeyed topics also the second.
TICK_HEADER = "fluvial-tick"
UPSTREAM_HEADER = "fluvial-upstream"


def header_value(records: RecordColumns, row: int, name: str) -> bytes | None:
    """Return the value of a record's last header of that name; None when it has none, or a null one."""
    buffer = records.value.buffer
    start, length = _find(buffer, records.header_start[row], _bytes(name))
    return None if length < 0 else buffer[start : start + length].tobytes()


def all_headers(records: RecordColumns, row: int) -> list[tuple[str, bytes | None]]:
    """Return a record's headers in order, as bytes that no longer depend on the fetch."""
    buffer, at = records.value.buffer, int(records.header_start[row])
    count, at = varint(buffer, at)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        length, at = varint(buffer, at)
        name = buffer[at : at + length].tobytes().decode(errors="replace")
        value_length, at = varint(buffer, at + length)
        headers.append((name, None if value_length < 0 else buffer[at : at + value_length].tobytes()))
        at += max(value_length, 0)
    return headers


def null_value_longs(records: RecordColumns, name: str) -> Longs:
    """Return, for every row, the decimal in a header of the rows whose value is null: a tick's instant, say.

    Not valid where the value is not null, or where the header is missing or not a decimal int64.
    """
    n = len(records)
    values, valid = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    _decimals(records.value.buffer, records.value.length, records.header_start, _bytes(name), values, valid)
    return Longs(values, valid)


def _bytes(name: str) -> U8:
    return np.frombuffer(bytearray(name.encode()), np.uint8)


@njit(cache=True, nogil=True)
def varint(buffer: U8, at: int) -> tuple[np.int64, int]:
    """Return the zigzag varint at a place, and the place after it."""
    # The parser has checked the bounds of every header section.
    value = np.uint64(0)
    shift = np.uint64(0)
    while True:
        byte = np.uint64(buffer[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)


@njit(cache=True, nogil=True)
def _find(buffer: U8, at: int, name: U8) -> tuple[int, int]:
    """Return where the value of the last header of that name starts, and its length; −1 for none or null."""
    found, found_length = 0, -1
    count, at = varint(buffer, at)
    for _ in range(count):
        length, at = varint(buffer, at)
        same = length == len(name)
        if same:
            for i in range(length):
                if buffer[at + i] != name[i]:
                    same = False
                    break
        value_length, at = varint(buffer, at + length)
        if same:
            found, found_length = at, value_length
        at += max(value_length, 0)
    return found, found_length


@njit(cache=True, nogil=True)
def _decimal(buffer: U8, at: int, length: int) -> tuple[np.int64, bool]:
    end = at + length
    negative = length > 0 and buffer[at] == 0x2D
    if negative:
        at += 1
    if end - at < 1 or end - at > 19:
        return np.int64(0), False
    value = np.uint64(0)
    for i in range(at, end):
        digit = np.uint64(buffer[i]) - np.uint64(0x30)
        if digit > np.uint64(9):
            return np.int64(0), False
        value = value * np.uint64(10) + digit
    if value > np.uint64(0x7FFFFFFFFFFFFFFF):
        return np.int64(0), False
    return (-np.int64(value) if negative else np.int64(value)), True


@njit(cache=True, nogil=True)
def _decimals(buffer: U8, value_length: I64, header_start: I64, name: U8, values: I64, valid: np.ndarray) -> None:
    for row in range(len(value_length)):
        if value_length[row] < 0:
            start, length = _find(buffer, header_start[row], name)
            if length >= 0:
                values[row], valid[row] = _decimal(buffer, start, length)
