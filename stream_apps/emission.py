"""A window's row, from its accumulators and sets."""

import math

import numpy as np

from fluvial.compiling import njit
from fluvial.stream_apps.layout import (
    DISTINCT,
    F_FIRST,
    F_LAST,
    F_MAX,
    F_MIN,
    F_S1,
    F_S2,
    F_SUM,
    HAS_VALUE,
    ITEM,
    N_OUT,
    O_COUNT,
    O_DISTINCT,
    O_DUP,
    O_END,
    O_FINAL,
    O_KEY,
    O_OFFSET,
    O_SLOT,
    O_START,
    QUANTILES,
    REGISTER,
    SIZE,
    SKETCH,
    TOP,
    V_FIRST,
    V_LAST,
    V_MAX,
    V_MEAN,
    V_MIN,
    V_P50,
    V_P95,
    V_P99,
    V_STDDEV,
    V_SUM,
    W_AUX,
    W_AUX_CLASS,
    W_AUX_COUNT,
    W_COUNT,
    W_DUP,
    W_KEY,
    W_OUT,
    W_START,
)
from fluvial.stream_apps.sketches import HLL_M, cardinality, quantile


@njit(cache=True, nogil=True)
def item_before(a, b, names, at):
    """Tell whether item a's name comes before item b's in byte order."""
    i, j = at[a], at[b]
    while i < at[a + 1] and j < at[b + 1]:
        if names[i] != names[j]:
            return names[i] < names[j]
        i += 1
        j += 1
    return at[a + 1] - at[a] < at[b + 1] - at[b]


@njit(cache=True, nogil=True)
def emit(s, o, final, offset, cfg, wi, wf, arena, sums, oi, of, top_item, top_sum, names, at):
    """Write window s as row o."""
    n = wi[s, W_COUNT]
    oi[o, O_KEY], oi[o, O_START], oi[o, O_END] = wi[s, W_KEY], wi[s, W_START], wi[s, W_START] + cfg[SIZE]
    oi[o, O_COUNT], oi[o, O_DUP], oi[o, O_FINAL], oi[o, O_OFFSET], oi[o, O_SLOT] = n, wi[s, W_DUP], final, offset, s
    if cfg[HAS_VALUE]:
        of[o, V_SUM], of[o, V_MEAN] = wf[s, F_SUM], wf[s, F_SUM] / n
        of[o, V_MIN], of[o, V_MAX], of[o, V_FIRST], of[o, V_LAST] = (
            wf[s, F_MIN],
            wf[s, F_MAX],
            wf[s, F_FIRST],
            wf[s, F_LAST],
        )
        of[o, V_STDDEV] = math.sqrt(max((wf[s, F_S2] - wf[s, F_S1] * wf[s, F_S1] / n) / n, 0.0))
    base, end = wi[s, W_AUX], wi[s, W_AUX] + (np.int64(1) << wi[s, W_AUX_CLASS])
    if cfg[QUANTILES]:
        buckets, counts = np.empty(wi[s, W_AUX_COUNT], np.int64), np.empty(wi[s, W_AUX_COUNT], np.int64)
        m = 0
        for h in range(base, end):
            if arena[h, 0] != -1 and arena[h, 0] >> 56 == SKETCH:
                j = m
                if m < 64:  # insertion sort: most windows hold few buckets
                    while j > 0 and buckets[j - 1] > arena[h, 0]:
                        buckets[j], counts[j] = buckets[j - 1], counts[j - 1]
                        j -= 1
                buckets[j], counts[j] = arena[h, 0], arena[h, 1]
                m += 1
        buckets, counts = buckets[:m], counts[:m]
        if m > 64:
            order = np.argsort(buckets)
            buckets, counts = buckets[order], counts[order]
        of[o, V_P50], of[o, V_P95], of[o, V_P99] = (
            quantile(buckets, counts, n, 0.5),
            quantile(buckets, counts, n, 0.95),
            quantile(buckets, counts, n, 0.99),
        )
    if cfg[DISTINCT]:
        registers = np.zeros(HLL_M, np.uint8)
        for h in range(base, end):
            if arena[h, 0] != -1 and arena[h, 0] >> 56 == REGISTER:
                registers[arena[h, 0] & (HLL_M - 1)] = arena[h, 1]
        oi[o, O_DISTINCT] = cardinality(registers)
    if cfg[TOP]:
        k = top_item.shape[1]
        for j in range(k):
            top_item[o, j] = -1
        for h in range(base, end):
            if arena[h, 0] != -1 and arena[h, 0] >> 56 == ITEM:
                item, total = arena[h, 0] & ((np.int64(1) << 56) - 1), sums[h, 1]
                j = k
                while j > 0 and (
                    top_item[o, j - 1] < 0
                    or total > top_sum[o, j - 1]
                    or (total == top_sum[o, j - 1] and item_before(item, top_item[o, j - 1], names, at))
                ):
                    j -= 1
                if j < k:
                    for x in range(k - 1, j, -1):
                        top_item[o, x], top_sum[o, x] = top_item[o, x - 1], top_sum[o, x - 1]
                    top_item[o, j], top_sum[o, j] = item, total


@njit(cache=True, nogil=True)
def row_of(s, call, st, wi):
    """Return the output row of window s: its earlier one of this call, which the new value replaces, or the next."""
    if wi[s, W_OUT] >> 20 == call:
        return wi[s, W_OUT] & ((1 << 20) - 1)
    o = st[N_OUT]
    wi[s, W_OUT] = (call << 20) | o
    st[N_OUT] = o + 1
    return o
