"""Kafka's partitioner, over whole columns: Java's DefaultPartitioner, librdkafka's ``murmur2_random`` for keys.

Source: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey.
"""

import numpy as np

from fluvial.compiling import njit
from fluvial.records import I64, U8, Spans

NO_KEY = -1

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(keys: Spans) -> I64:
    """Return the 32-bit murmur2 hash of every key as Java's signed int, in int64[n]; 0 where the key is null."""
    out = np.zeros(len(keys), np.int64)
    _hashes(keys.buffer, keys.start, keys.length, out)
    return out


def partition_for(keys: Spans, partitions: int) -> I64:
    """Return the partition of every key, int64[n]; `NO_KEY` where the key is null (any partition will do)."""
    found = (murmur2(keys) & 0x7FFFFFFF) % partitions
    return np.where(keys.length >= 0, found, NO_KEY)


@njit(cache=True, nogil=True)
def _hashes(buffer: U8, start: I64, length: I64, out: I64) -> None:
    m, mask = np.uint64(_M), np.uint64(_MASK)
    for row in range(len(start)):
        n = length[row]
        if n < 0:
            continue
        at = start[row]
        h = np.uint64(_SEED) ^ np.uint64(n)
        for i in range(at, at + (n & ~3), 4):
            k = (
                np.uint64(buffer[i])
                | np.uint64(buffer[i + 1]) << np.uint64(8)
                | np.uint64(buffer[i + 2]) << np.uint64(16)
                | np.uint64(buffer[i + 3]) << np.uint64(24)
            )
            k = (k * m) & mask
            k ^= k >> np.uint64(24)
            k = (k * m) & mask
            h = ((h * m) & mask) ^ k
        tail, left = at + (n & ~3), n & 3
        if left:
            if left == 3:
                h ^= np.uint64(buffer[tail + 2]) << np.uint64(16)
            if left >= 2:
                h ^= np.uint64(buffer[tail + 1]) << np.uint64(8)
            h ^= np.uint64(buffer[tail])
            h = (h * m) & mask
        h ^= h >> np.uint64(13)
        h = (h * m) & mask
        h ^= h >> np.uint64(15)
        signed = np.int64(h)
        out[row] = signed - (np.int64(1) << 32) if signed >= (np.int64(1) << 31) else signed
