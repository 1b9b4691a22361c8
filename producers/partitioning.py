"""Which partition a key goes to: murmur2, as Kafka's Java clients and the publisher have it."""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import numpy as np
from numba import njit

from fluvial.records import I64, U8, Spans
from fluvial.schemas.columns import sealed


def partitions_of(keys: Spans, partitions: int) -> I64:
    """Return the partition of every key (not null) of a topic with so many partitions.

    Source: `org.apache.kafka.common.utils.Utils.murmur2` and `toPositive`.
    """
    found: I64 = _partitions(sealed(keys.buffer), keys.start, keys.length, partitions)
    return found


@njit(cache=True, nogil=True)
def _partitions(buffer: U8, start: I64, length: I64, partitions: int) -> I64:
    out = np.empty(len(start), np.int64)
    m = np.uint32(0x5BD1E995)
    for row in range(len(start)):
        at, n = start[row], length[row]
        h = np.uint32(np.uint32(0x9747B28C) ^ np.uint32(n))
        whole = n // 4
        for i in range(whole):
            p = at + 4 * i
            k = np.uint32(buffer[p]) | np.uint32(buffer[p + 1]) << np.uint32(8)
            k |= np.uint32(buffer[p + 2]) << np.uint32(16) | np.uint32(buffer[p + 3]) << np.uint32(24)
            k = np.uint32(k * m)
            k = np.uint32(k ^ (k >> np.uint32(24)))
            k = np.uint32(k * m)
            h = np.uint32(np.uint32(h * m) ^ k)
        p = at + 4 * whole
        rest = n - 4 * whole
        if rest == 3:
            h = np.uint32(h ^ np.uint32(buffer[p + 2]) << np.uint32(16))
        if rest >= 2:
            h = np.uint32(h ^ np.uint32(buffer[p + 1]) << np.uint32(8))
        if rest >= 1:
            h = np.uint32(h ^ np.uint32(buffer[p]))
            h = np.uint32(h * m)
        h = np.uint32(h ^ (h >> np.uint32(13)))
        h = np.uint32(h * m)
        h = np.uint32(h ^ (h >> np.uint32(15)))
        out[row] = np.int64(h & np.uint32(0x7FFFFFFF)) % partitions
    return out
