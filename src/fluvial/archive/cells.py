"""Record columns as Arrow arrays and back: spans gathered and header sections taken apart, no object per record."""

import numpy as np
import pyarrow as pa

from fluvial.compiling import njit
from fluvial.records import I64, U8, Mask, RecordColumns, Spans
from fluvial.transport.headers import varint

CREATE_TIME, LOG_APPEND_TIME = "CreateTime", "LogAppendTime"
HEADER = pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())])
RECORD = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("timestamp_type", pa.string(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.field("element", HEADER, nullable=False)), nullable=False),
    ]
)
# Arrow's binary and list arrays have 32-bit offsets.
MAX_BYTES = (1 << 31) - 1


def to_arrow(records: RecordColumns, log_append: Mask) -> pa.RecordBatch:
    """Return records as rows of `RECORD`; ``log_append`` is true where the broker set the timestamp.

    The records of one fetch: their bytes must fit in 2 GiB.
    """
    kinds = pa.DictionaryArray.from_arrays(
        pa.array(log_append.astype(np.int8)), pa.array([CREATE_TIME, LOG_APPEND_TIME])
    )
    arrays = [
        pa.array(records.offset),
        pa.array(records.timestamp).cast(RECORD.field("timestamp").type),
        kinds.cast(pa.string()),
        binary(records.key),
        binary(records.value),
        _headers(records.value.buffer, records.header_start),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD)


def from_arrow(table: pa.Table, topic: str, partition: int) -> RecordColumns:
    """Return rows of `RECORD`, one at least, as the record columns that they were."""
    offset = _longs(table.column("offset"))
    key, value, headers = (_one(table.column(name)) for name in ("key", "value", "headers"))
    header_at, header_part = _header_sections(headers)
    parts, starts, lengths = [], [], []
    base = 0
    for array in (key, value):
        data, offsets = _binary_parts(array)
        parts.append(data)
        starts.append(offsets[:-1] + base)
        length = np.diff(offsets)
        lengths.append(np.where(_valid(array), length, -1) if array.null_count else length)
        base += len(data)
    parts.append(header_part)
    buffer = np.concatenate(parts)
    return RecordColumns(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=_longs(table.column("timestamp").cast(pa.int64())),
        key=Spans(buffer, starts[0], lengths[0]),
        value=Spans(buffer, starts[1], lengths[1]),
        header_start=header_at + base,
        next_offset=int(offset[-1]) + 1,
    )


def binary(spans: Spans, kind: pa.DataType | None = None) -> pa.Array:
    """Return spans as an Arrow ``binary`` (or ``string``) array, gathered into a buffer of their own."""
    n = len(spans)
    offsets = np.zeros(n + 1, np.int32)
    data = np.empty(int(np.maximum(spans.length, 0).sum()), np.uint8)
    nulls = _gather(spans.buffer, spans.start, spans.length, offsets, data)
    bitmap = pa.py_buffer(np.packbits(spans.length >= 0, bitorder="little")) if nulls else None
    return pa.Array.from_buffers(
        kind or pa.binary(), n, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)], int(nulls)
    )


def _headers(buffer: U8, header_start: I64) -> pa.Array:
    n = len(header_start)
    offsets = np.zeros(n + 1, np.int32)
    total = _count_headers(buffer, header_start, offsets)
    spans = np.empty((4, total), np.int64)
    if total:
        _find_headers(buffer, header_start, spans)
    names, values = Spans(buffer, spans[0], spans[1]), Spans(buffer, spans[2], spans[3])
    fields = [HEADER.field("key"), HEADER.field("value")]
    structs = pa.StructArray.from_arrays([binary(names, pa.string()), binary(values)], fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=RECORD.field("headers").type)


def _header_sections(headers: pa.Array) -> tuple[I64, U8]:
    """Return where each row's header section begins in the bytes returned, written as Kafka writes them."""
    n = len(headers)
    counts = np.diff(np.asarray(headers.offsets))
    structs = headers.flatten()
    if not len(structs):
        return np.zeros(n, np.int64), np.zeros(1, np.uint8)
    names, values = structs.field("key"), structs.field("value")
    name_data, name_offsets = _binary_parts(names)
    value_data, value_offsets = _binary_parts(values)
    room = len(name_data) + len(value_data) + 10 * (len(structs) * 2 + n)
    out, at = np.empty(room, np.uint8), np.empty(n, np.int64)
    end = _write_headers(counts, name_data, name_offsets, value_data, value_offsets, _valid(values), out, at)
    return at, out[:end]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _binary_parts(array: pa.Array) -> tuple[U8, I64]:
    """Return the bytes of a binary or string array and its n + 1 offsets into them."""
    _, offsets, data = array.buffers()
    if not len(array):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    at = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    found = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return found[at[0] : at[-1]], at - at[0]


def _valid(array: pa.Array) -> Mask:
    mask: Mask = array.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


def _longs(column: pa.ChunkedArray) -> I64:
    values: I64 = np.ascontiguousarray(column.to_numpy(), np.int64)
    return values


@njit(cache=True, nogil=True)
def _gather(buffer: U8, start: I64, length: I64, offsets: np.ndarray, data: U8) -> int:
    at, nulls = 0, 0
    for i in range(len(start)):
        n = length[i]
        if n < 0:
            nulls += 1
        else:
            source = start[i]
            for j in range(n):
                data[at + j] = buffer[source + j]
            at += n
        offsets[i + 1] = at
    return nulls


@njit(cache=True, nogil=True)
def _count_headers(buffer: U8, header_start: I64, offsets: np.ndarray) -> int:
    total = 0
    for i in range(len(header_start)):
        count, _ = varint(buffer, header_start[i])
        total += count
        offsets[i + 1] = total
    return total


@njit(cache=True, nogil=True)
def _find_headers(buffer: U8, header_start: I64, spans: I64) -> None:
    row = 0
    for i in range(len(header_start)):
        count, at = varint(buffer, header_start[i])
        for _ in range(count):
            length, at = varint(buffer, at)
            spans[0, row], spans[1, row] = at, length
            length, at = varint(buffer, at + length)
            spans[2, row], spans[3, row] = at, length
            at += max(length, 0)
            row += 1


@njit(cache=True, nogil=True)
def _putvarint(out: U8, at: int, value: np.int64) -> int:
    left = np.uint64((value << 1) ^ (value >> 63))
    while left >= np.uint64(0x80):
        out[at] = np.uint8((left & np.uint64(0x7F)) | np.uint64(0x80))
        left >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(left)
    return at + 1


@njit(cache=True, nogil=True)
def _write_headers(
    counts: np.ndarray,
    names: U8,
    name_offsets: I64,
    values: U8,
    value_offsets: I64,
    valid: np.ndarray,
    out: U8,
    section: I64,
) -> int:
    at, h = 0, 0
    for i in range(len(counts)):
        section[i] = at
        at = _putvarint(out, at, np.int64(counts[i]))
        for _ in range(counts[i]):
            a, b = name_offsets[h], name_offsets[h + 1]
            at = _putvarint(out, at, b - a)
            for j in range(a, b):
                out[at] = names[j]
                at += 1
            if valid[h]:
                a, b = value_offsets[h], value_offsets[h + 1]
                at = _putvarint(out, at, b - a)
                for j in range(a, b):
                    out[at] = values[j]
                    at += 1
            else:
                at = _putvarint(out, at, np.int64(-1))
            h += 1
    return at
