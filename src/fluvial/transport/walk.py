"""The headers of the record batches in a fetch response, read without touching a record.

Layout: Kafka's message format v2, https://kafka.apache.org/documentation/#recordbatch (all integers big-endian).
"""

from dataclasses import dataclass

import numpy as np

from fluvial.compiling import njit
from fluvial.errors import CorruptRecordBatchError
from fluvial.records import I64, U8, Mask

HEADER_BYTES = 61
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ABORT, COMMIT, NOT_CONTROL = 0, 1, -1

_FIELDS = 11
_CODEC_BITS, _LOG_APPEND_BIT, _TRANSACTIONAL_BIT, _CONTROL_BIT = 0x07, 0x08, 0x10, 0x20
_OK, _OLD_MAGIC, _MALFORMED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class BatchHeaders:
    """The headers of n record batches, as int64[n] each.

    ``start`` and ``end`` are byte positions of the whole batch in the fetched bytes; ``next_offset`` is the offset
    after the batch's last one, which compaction may have removed; ``control`` is ABORT or COMMIT for a marker,
    another number for other control batches, NOT_CONTROL for data; timestamps are epoch ms; ``producer_id`` is −1
    without one.
    """

    start: I64
    end: I64
    base_offset: I64
    next_offset: I64
    attributes: I64
    base_timestamp: I64
    max_timestamp: I64
    producer_id: I64
    records: I64
    crc: I64
    control: I64

    def __len__(self) -> int:
        return len(self.start)

    @property
    def codec(self) -> I64:
        """Indexes into `CODECS`."""
        return self.attributes & _CODEC_BITS

    @property
    def is_control(self) -> Mask:
        """True for batches that hold markers rather than data."""
        return np.asarray(self.attributes & _CONTROL_BIT, np.bool_)

    @property
    def is_transactional(self) -> Mask:
        """True for batches that belong to a transaction."""
        return np.asarray(self.attributes & _TRANSACTIONAL_BIT, np.bool_)

    @property
    def log_append_time(self) -> Mask:
        """True where every record's timestamp is the batch's ``max_timestamp``."""
        return np.asarray(self.attributes & _LOG_APPEND_BIT, np.bool_)


def walk(raw: bytes) -> BatchHeaders:
    """Read the headers of all whole batches in ``raw``; a cut-off batch at the end is left out.

    Raises:
        CorruptRecordBatchError: a batch has an impossible length or a message format older than v2.
    """
    data = np.frombuffer(raw, dtype=np.uint8)
    count, status, at = _count(data)
    if status == _OLD_MAGIC:
        raise CorruptRecordBatchError(
            f"message format v{data[at + 16]} at byte {at} of a fetch: only v2 (Kafka 0.11, 2017) is read",
            hint="copy the topic with a current producer, or upgrade its brokers' message format",
        )
    if status == _MALFORMED:
        raise CorruptRecordBatchError(
            f"a record batch at byte {at} of a fetch has an impossible length",
            hint="check the broker's disks; `kafka-dump-log.sh --deep-iteration` shows the damaged segment",
        )
    return BatchHeaders(*_read(data, count))


def readable(headers: BatchHeaders, aborted: list[tuple[int, int]]) -> Mask:
    """Return which batches hold committed data: not control batches, nor those of the given aborted transactions.

    ``aborted`` are (producer id, first offset) pairs as in the fetch response. The algorithm is the Java consumer's
    (CompletedFetch): a transaction's batches are aborted from its first offset to its producer's ABORT marker.
    """
    keep = ~headers.is_control
    if not aborted:
        return keep
    waiting = sorted(aborted, key=lambda pair: pair[1], reverse=True)
    active: set[int] = set()
    transactional = headers.is_transactional
    for i in np.flatnonzero(headers.producer_id >= 0).tolist():
        producer = int(headers.producer_id[i])
        while waiting and waiting[-1][1] <= headers.base_offset[i]:
            active.add(waiting.pop()[0])
        if headers.control[i] == ABORT:
            active.discard(producer)
        elif transactional[i] and producer in active:
            keep[i] = False
    return keep


@njit(cache=True, nogil=True)
def _be(data: U8, at: int, width: int) -> np.int64:
    value = np.int64(0)
    for i in range(at, at + width):
        value = (value << 8) | np.int64(data[i])
    return value


@njit(cache=True, nogil=True)
def _be32(data: U8, at: int) -> np.int64:
    value: np.int64 = _be(data, at, 4)
    return np.int64(value - (1 << 32)) if value >= (1 << 31) else value


@njit(cache=True, nogil=True)
def _count(data: U8) -> tuple[int, int, int]:
    at, count, total = 0, 0, len(data)
    while at + 17 <= total:
        length = _be32(data, at + 8)
        if data[at + 16] < 2:
            return count, _OLD_MAGIC, at
        if length < HEADER_BYTES - 12 or data[at + 16] != 2:
            return count, _MALFORMED, at
        if at + 12 + length > total:
            break
        at += 12 + length
        count += 1
    return count, _OK, at


@njit(cache=True, nogil=True)
def _skip_varint(data: U8, at: int, end: int) -> int:
    while at < end and data[at] >= 0x80:
        at += 1
    return at + 1


@njit(cache=True, nogil=True)
def _control_type(data: U8, at: int, end: int) -> np.int64:
    # A control record's key is int16 version, int16 type; before it: length, attributes, two deltas, the key's length.
    at = _skip_varint(data, at, end) + 1
    for _ in range(3):
        at = _skip_varint(data, at, end)
    if at + 4 > end:
        return np.int64(1 << 16)
    kind: np.int64 = _be(data, at + 2, 2)
    return kind


@njit(cache=True, nogil=True)
def _read(data: U8, count: int) -> I64:
    out = np.empty((_FIELDS, count), np.int64)
    at = 0
    for i in range(count):
        end = at + 12 + _be32(data, at + 8)
        attributes = _be(data, at + 21, 2)
        out[0, i] = at
        out[1, i] = end
        out[2, i] = _be(data, at, 8)
        out[3, i] = out[2, i] + _be32(data, at + 23) + 1
        out[4, i] = attributes
        out[5, i] = _be(data, at + 27, 8)
        out[6, i] = _be(data, at + 35, 8)
        out[7, i] = _be(data, at + 43, 8)
        out[8, i] = _be32(data, at + 57)
        out[9, i] = _be(data, at + 17, 4)
        out[10, i] = _control_type(data, at + HEADER_BYTES, end) if attributes & _CONTROL_BIT else NOT_CONTROL
        at = end
    return out
