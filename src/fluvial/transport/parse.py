"""Records as columns: from verified, decompressed record batches to `RecordColumns`, no object per record."""

import numpy as np

from fluvial.compiling import njit
from fluvial.errors import CorruptRecordBatchError
from fluvial.records import I64, U8, RecordColumns, Spans
from fluvial.transport.inflate import inflate, verify
from fluvial.transport.walk import BatchHeaders

# A record is at least: length, attributes, two deltas, two lengths and the header count, one byte each.
MIN_RECORD_BYTES = 7


def parse(
    topic: str, partition: int, first_offset: int, raw: bytes, headers: BatchHeaders, chosen: I64, next_offset: int
) -> RecordColumns:
    """Return the records of the chosen batches of a fetch, at or after ``first_offset``, in offset order.

    All batches' checksums are verified, the chosen ones are parsed.

    Raises:
        CorruptRecordBatchError: naming the topic, the partition and the batch's offset.
    """
    try:
        bad = verify(raw, headers)
        if bad is not None:
            raise CorruptRecordBatchError(
                f"the record batch at offset {headers.base_offset[bad]} does not match its checksum",
                hint="fetch again; if it stays, the partition's log is damaged on its leader",
            )
        buffer, bounds = inflate(raw, headers, chosen)
        counts = headers.records[chosen]
        wrong = np.flatnonzero((counts < 0) | (counts * MIN_RECORD_BYTES > np.diff(bounds)))
        if len(wrong):
            raise _unparsable(headers, chosen, int(wrong[0]))
        columns = np.empty((7, int(counts.sum())), np.int64)
        fixed = np.where(headers.log_append_time, headers.max_timestamp, -1)[chosen]
        rows, failed = _parse(
            buffer,
            bounds,
            counts,
            headers.base_offset[chosen],
            headers.base_timestamp[chosen],
            fixed,
            first_offset,
            columns,
        )
        if failed >= 0:
            raise _unparsable(headers, chosen, failed)
    except CorruptRecordBatchError as e:
        raise CorruptRecordBatchError(f"{topic}[{partition}]: {e.message}", hint=e.hint) from None
    offset, timestamp, key_start, key_length, value_start, value_length, header_start = columns[:, :rows]
    return RecordColumns(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=timestamp,
        key=Spans(buffer, key_start, key_length),
        value=Spans(buffer, value_start, value_length),
        header_start=header_start,
        next_offset=next_offset,
    )


def _unparsable(headers: BatchHeaders, chosen: I64, i: int) -> CorruptRecordBatchError:
    return CorruptRecordBatchError(
        f"the record batch at offset {headers.base_offset[chosen[i]]} matches its checksum but cannot be parsed",
        hint="its producer wrote a malformed batch; `kafka-dump-log.sh --deep-iteration` shows it",
    )


@njit(cache=True, nogil=True)
def _varint(buffer: U8, at: int, end: int) -> tuple[np.int64, int]:
    """Return a zigzag varint and the position after it; position −1 when it runs past ``end`` or 64 bits."""
    if at < end and buffer[at] < 0x80:
        b = np.int64(buffer[at])
        return (b >> 1) ^ -(b & 1), at + 1
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end:
        byte = np.uint64(buffer[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            break
    return np.int64(0), -1


@njit(cache=True, nogil=True)
def _span(buffer: U8, at: int, end: int) -> tuple[np.int64, int]:
    """Return the length of a length-prefixed string and where it starts; position −1 when it runs past ``end``."""
    length, at = _varint(buffer, at, end)
    if at < 0 or length < -1 or (length > 0 and length > end - at):
        return np.int64(0), -1
    return length, at


@njit(cache=True, nogil=True)
def _headers_end(buffer: U8, at: int, end: int) -> int:
    """Return where a record's header section ends, −1 when it runs past ``end``."""
    count, at = _varint(buffer, at, end)
    if at < 0 or count < 0:
        return -1
    for _ in range(count):
        length, at = _span(buffer, at, end)
        if at < 0 or length < 0:
            return -1
        length, at = _span(buffer, at + length, end)
        if at < 0:
            return -1
        at += max(length, 0)
    return at


@njit(cache=True, nogil=True)
def _parse(
    buffer: U8,
    bounds: I64,
    counts: I64,
    base_offset: I64,
    base_timestamp: I64,
    fixed_timestamp: I64,
    first_offset: int,
    columns: I64,
) -> tuple[int, int]:
    """Fill ``columns`` record by record; return how many were kept, and which batch is malformed (−1: none)."""
    row = 0
    for i in range(len(counts)):
        at, batch_end = bounds[i], bounds[i + 1]
        for _ in range(counts[i]):
            size, at = _varint(buffer, at, batch_end)
            if at < 0 or size < 1 or size > batch_end - at:
                return row, i
            end = at + size
            timestamp, at = _varint(buffer, at + 1, end)
            if at < 0:
                return row, i
            delta, at = _varint(buffer, at, end)
            if at < 0:
                return row, i
            key_length, key_start = _span(buffer, at, end)
            if key_start < 0:
                return row, i
            value_length, value_start = _span(buffer, key_start + max(key_length, 0), end)
            if value_start < 0:
                return row, i
            headers = value_start + max(value_length, 0)
            if _headers_end(buffer, headers, end) != end:
                return row, i
            offset = base_offset[i] + delta
            if offset >= first_offset:
                columns[0, row] = offset
                columns[1, row] = fixed_timestamp[i] if fixed_timestamp[i] >= 0 else base_timestamp[i] + timestamp
                columns[2, row] = key_start
                columns[3, row] = key_length
                columns[4, row] = value_start
                columns[5, row] = value_length
                columns[6, row] = headers
                row += 1
            at = end
        if at != batch_end:
            return row, i
    return row, -1
