"""Record batches' payloads, verified and decompressed one after the other into one buffer."""

from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np
from aiokafka.record.util import calc_crc32c

from fluvial.errors import CorruptRecordBatchError
from fluvial.records import I64, U8
from fluvial.transport.walk import CODECS, HEADER_BYTES, BatchHeaders

# What one batch may grow to; a batch is at most max.message.bytes (1 MiB by default) before that.
MAX_BATCH_BYTES = 256 << 20

_XERIAL = b"\x82SNAPPY\x00"
_CRC_FROM = 21


def verify(raw: bytes, headers: BatchHeaders) -> int | None:
    """Return the index of the first batch whose CRC-32C does not match its bytes, None when all do."""
    view = memoryview(raw)
    rows = zip(headers.start.tolist(), headers.end.tolist(), headers.crc.tolist(), strict=True)
    for i, (start, end, crc) in enumerate(rows):
        if calc_crc32c(view[start + _CRC_FROM : end]) != crc:
            return i
    return None


def inflate(raw: bytes, headers: BatchHeaders, chosen: I64) -> tuple[U8, I64]:
    """Return the records of the chosen batches in one buffer, and int64[len(chosen) + 1] bounds of each batch in it.

    Raises:
        CorruptRecordBatchError: an unknown codec, or a payload that does not decompress to at most `MAX_BATCH_BYTES`.
    """
    view = memoryview(raw)
    starts, ends, codecs = headers.start[chosen] + HEADER_BYTES, headers.end[chosen], headers.codec[chosen]
    guess = int(((ends - starts) * np.where(codecs == 0, 1, 6)).sum())
    out = np.empty(guess + 64, np.uint8)
    bounds = np.zeros(len(chosen) + 1, np.int64)
    at = 0
    for i, (start, end, codec) in enumerate(zip(starts.tolist(), ends.tolist(), codecs.tolist(), strict=True)):
        payload = view[start:end]
        if codec == 0:
            out = _with_room(out, at, end - start)
            out[at : at + end - start] = np.frombuffer(payload, np.uint8)
            at += end - start
        else:
            try:
                out, at = _append(out, at, payload, codec)
            except CorruptRecordBatchError as e:
                raise CorruptRecordBatchError(
                    f"the record batch at offset {headers.base_offset[chosen[i]]} {e.message}",
                    hint="read on after it only by moving the group's position past it by hand",
                ) from None
        bounds[i + 1] = at
    return out[:at], bounds


def _append(out: U8, at: int, payload: memoryview, codec: int) -> tuple[U8, int]:
    if codec >= len(CODECS):
        raise CorruptRecordBatchError(f"has the unknown codec {codec}")
    into = _INTO[CODECS[codec]]
    while True:
        try:
            return out, at + into(payload, out[at:])
        except (cramjam.DecompressionError, ValueError) as e:
            # The codecs say "too small" and "corrupt" alike, so grow up to the limit first.
            if len(out) - at >= MAX_BATCH_BYTES:
                raise CorruptRecordBatchError(
                    f"does not decompress ({CODECS[codec]}, {len(payload)} bytes, "
                    f"at most {MAX_BATCH_BYTES >> 20} MiB): {e}"
                ) from None
            out = _with_room(out, at, min(max(4 * (len(out) - at), 16 * len(payload), 1 << 16), MAX_BATCH_BYTES))


def _with_room(out: U8, at: int, need: int) -> U8:
    if len(out) - at >= need:
        return out
    grown = np.empty(at + max(need, len(out) // 2), np.uint8)
    grown[:at] = out[:at]
    return grown


def _snappy_into(payload: memoryview, out: Any) -> int:
    if bytes(payload[:8]) != _XERIAL:
        return int(cramjam.snappy.decompress_raw_into(payload, out))
    # snappy-java's stream: magic, two versions (int32), then blocks of an int32 length and raw snappy.
    at, used = 16, 0
    while at + 4 <= len(payload):
        length = int.from_bytes(payload[at : at + 4], "big")
        used += int(cramjam.snappy.decompress_raw_into(payload[at + 4 : at + 4 + length], out[used:]))
        at += 4 + length
    return used


_INTO: dict[str, Callable[[memoryview, Any], int]] = {
    "gzip": cramjam.gzip.decompress_into,
    "snappy": _snappy_into,
    "lz4": cramjam.lz4.decompress_into,
    "zstd": cramjam.zstd.decompress_into,
}
