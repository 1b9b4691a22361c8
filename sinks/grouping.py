"""Equal byte strings to equal group numbers, in order of first appearance."""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import numpy as np

from fluvial.compiling import njit
from fluvial.records import I64, Spans


@njit(cache=True, nogil=True)
def _group(buffer, start, length, groups, table):
    mask = len(table) - 1
    count = 0
    for i in range(len(start)):
        a, n = start[i], length[i]
        h = np.uint64(0xCBF29CE484222325)
        for j in range(n):
            h = (h ^ np.uint64(buffer[a + j])) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(32)
        p = np.int64(h) & mask
        while table[p] >= 0:
            k = table[p]
            if length[k] == n:
                b = start[k]
                j = 0
                while j < n and buffer[a + j] == buffer[b + j]:
                    j += 1
                if j == n:
                    break
            p = (p + 1) & mask
        if table[p] < 0:
            table[p] = i
            groups[i] = count
            count += 1
        else:
            groups[i] = groups[table[p]]
    return count


def group(keys: Spans) -> tuple[I64, int]:
    """Return each key's group number and how many groups there are; numbers follow first appearance."""
    n = len(keys)
    groups = np.empty(n, np.int64)
    table = np.full(1 << max(4, (2 * n).bit_length()), -1, np.int64)
    return groups, int(_group(keys.buffer, keys.start, keys.length, groups, table))
