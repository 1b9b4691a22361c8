"""The window engine: docs/reference/semantics.md as one compiled loop, one event at a time, over arrays.

Everything a window knows is one row of ``wi`` (integers) and ``wf`` (doubles), everything a key knows one row of ``ki``, so
that an event touches few cache lines. Sets of unbounded size (identities; sketch buckets, registers and items) are
open-addressing tables keyed by the window's uid; entries of closed windows are dropped when a table is rebuilt.
`fold` stops before a record when a table is too full; the caller makes room and calls again (``fluvial.stream_apps.windows``).
"""

import math

import numpy as np
from numba import njit

NEG = -(1 << 62)
EVENT, PARTITION_TICK, KEYED_TICK = 0, 1, 2
BY_KEY, BY_PARTITION, REKEYED = 0, 1, 2
ROOM_OK, ROOM_ROWS, ROOM_WINDOWS, ROOM_IDS, ROOM_AUX, ROOM_ENDS = 0, 1, 2, 3, 4, 5

# cfg, constants of a pipeline
SIZE, HOP, LATENESS, IDLE, EARLY, MODE, HAS_VALUE, QUANTILES, DISTINCT, TOP, IDENTITY = range(11)
N_CFG = 11
# st, scalars that change
P, NEED, N_FREE, N_IDS, N_AUX, OLDEST, NEWEST, N_LATE, N_DUP, N_AGG, CLOSED, N_ENDS, RESUME, CALL, N_OUT, N_LATE_OUT, N_TICKS = range(17)
N_ST = 17
# ki, per key
K_TIME, K_HEARD, K_CLOSED, K_HEAD, K_PREV, K_NEXT, K_CURRENT, K_SIBLING = range(8)
N_KI = 8
UNKNOWN = -2  # K_SIBLING of a key of which no event was seen yet
# wi, wf, per window
W_KEY, W_START, W_GEN, W_NEXT, W_COUNT, W_DUP, W_EARLY, W_FIRST_T, W_LAST_T, W_AUX, W_OUT = range(11)
N_WI = 11
F_SUM, F_MIN, F_MAX, F_FIRST, F_LAST, F_V1, F_S1, F_S2 = range(8)
N_WF = 8
# oi, of, per emitted row
O_KEY, O_START, O_END, O_COUNT, O_DUP, O_FINAL, O_OFFSET, O_DISTINCT, O_SLOT = range(9)
N_OI = 9
V_SUM, V_MEAN, V_MIN, V_MAX, V_FIRST, V_LAST, V_STDDEV, V_P50, V_P95, V_P99 = range(10)
N_OF = 10
# aux entries: uid, sub, value, next
SKETCH, REGISTER, ITEM = 0, 1, 2
ZERO_BUCKET = 1 << 40
SIGN_SPAN = 1 << 30

LOG_GAMMA = math.log(1.01 / 0.99)
GAMMA_PLUS_1 = 1.01 / 0.99 + 1.0
TINY = 1e-300
HLL_P = 12
HLL_M = 1 << HLL_P


@njit(cache=True, nogil=True)
def mix(a, b):
    """Mix two 64-bit words into one (multiply, xor, shift)."""
    h = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) ^ (np.uint64(b) + np.uint64(0xD1B54A32D192ED03))
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(29)
    return h


@njit(cache=True, nogil=True)
def bucket_of(v):
    """DDSketch bucket of v as one integer that sorts like v: negatives, zero, positives (1 % relative error)."""
    if v >= TINY:
        return np.int64(math.ceil(math.log(v) / LOG_GAMMA)) + np.int64(ZERO_BUCKET + SIGN_SPAN)
    if v <= -TINY:
        return np.int64(ZERO_BUCKET - SIGN_SPAN) - np.int64(math.ceil(math.log(-v) / LOG_GAMMA))
    return np.int64(ZERO_BUCKET)


@njit(cache=True, nogil=True)
def bucket_value(b):
    """Return the value that stands for bucket b: 2 γ^i / (γ + 1) with its sign."""
    if b == ZERO_BUCKET:
        return 0.0
    if b > ZERO_BUCKET:
        return 2.0 * math.exp((b - (ZERO_BUCKET + SIGN_SPAN)) * LOG_GAMMA) / GAMMA_PLUS_1
    return -(2.0 * math.exp(((ZERO_BUCKET - SIGN_SPAN) - b) * LOG_GAMMA) / GAMMA_PLUS_1)


@njit(cache=True, nogil=True)
def quantile(buckets, counts, n, q):
    """Return the q-quantile of n values in sorted DDSketch buckets: the first whose cumulative count exceeds q (n − 1)."""
    rank = q * (n - 1)
    seen = np.int64(0)
    for j in range(len(buckets)):
        seen += counts[j]
        if seen > rank:
            return bucket_value(buckets[j])
    return bucket_value(buckets[-1])


@njit(cache=True, nogil=True)
def cardinality(registers):
    """Return the HyperLogLog estimate of 2¹² registers, linear counting below 2.5 m (Flajolet et al. 2007)."""
    total, zeros = 0.0, 0
    for j in range(HLL_M):
        total += 2.0 ** -np.float64(registers[j])
        if registers[j] == 0:
            zeros += 1
    estimate = 0.7213 / (1.0 + 1.079 / HLL_M) * HLL_M * HLL_M / total
    if estimate <= 2.5 * HLL_M and zeros > 0:
        estimate = HLL_M * math.log(HLL_M / zeros)
    return np.int64(np.rint(estimate))


@njit(cache=True, nogil=True)
def add_aux(s, sub, value, add, wi, aux, st):
    """Add to (or take the maximum with, when not ``add``) the double or integer under (window s, sub)."""
    mask = len(aux) - 1
    uid = (wi[s, W_GEN] << 32) | s
    h = np.int64(mix(uid, sub)) & mask
    while aux[h, 0] != -1:
        if aux[h, 0] == uid and aux[h, 1] == sub:
            if add:
                aux[h, 2] += value
            elif value > aux[h, 2]:
                aux[h, 2] = value
            return
        h = (h + 1) & mask
    aux[h, 0], aux[h, 1], aux[h, 2], aux[h, 3] = uid, sub, value, wi[s, W_AUX]
    wi[s, W_AUX] = h
    st[N_AUX] += 1


@njit(cache=True, nogil=True)
def add_item(s, item, value, wi, aux, auxf, st):
    """Add a double to item's sum in window s (left fold in log order)."""
    mask = len(aux) - 1
    uid = (wi[s, W_GEN] << 32) | s
    sub = (np.int64(ITEM) << 56) | item
    h = np.int64(mix(uid, sub)) & mask
    while aux[h, 0] != -1:
        if aux[h, 0] == uid and aux[h, 1] == sub:
            auxf[h] += value
            return
        h = (h + 1) & mask
    aux[h, 0], aux[h, 1], aux[h, 2], aux[h, 3] = uid, sub, 0, wi[s, W_AUX]
    auxf[h] = 0.0 + value
    wi[s, W_AUX] = h
    st[N_AUX] += 1


@njit(cache=True, nogil=True)
def item_before(a, b, arena, at):
    """Tell whether item a's name comes before item b's in byte order."""
    i, j = at[a], at[b]
    while i < at[a + 1] and j < at[b + 1]:
        if arena[i] != arena[j]:
            return arena[i] < arena[j]
        i += 1
        j += 1
    return at[a + 1] - at[a] < at[b + 1] - at[b]


@njit(cache=True, nogil=True)
def emit(s, o, final, offset, cfg, wi, wf, aux, auxf, oi, of, top_item, top_sum, arena, at):
    """Write window s as row o."""
    n = wi[s, W_COUNT]
    oi[o, O_KEY], oi[o, O_START], oi[o, O_END] = wi[s, W_KEY], wi[s, W_START], wi[s, W_START] + cfg[SIZE]
    oi[o, O_COUNT], oi[o, O_DUP], oi[o, O_FINAL], oi[o, O_OFFSET], oi[o, O_SLOT] = n, wi[s, W_DUP], final, offset, s
    if cfg[HAS_VALUE]:
        of[o, V_SUM], of[o, V_MEAN] = wf[s, F_SUM], wf[s, F_SUM] / n
        of[o, V_MIN], of[o, V_MAX], of[o, V_FIRST], of[o, V_LAST] = wf[s, F_MIN], wf[s, F_MAX], wf[s, F_FIRST], wf[s, F_LAST]
        of[o, V_STDDEV] = math.sqrt(max((wf[s, F_S2] - wf[s, F_S1] * wf[s, F_S1] / n) / n, 0.0))
    if cfg[QUANTILES]:
        m, h = 0, wi[s, W_AUX]
        while h >= 0:
            if aux[h, 1] >> 56 == SKETCH:
                m += 1
            h = aux[h, 3]
        buckets, counts = np.empty(m, np.int64), np.empty(m, np.int64)
        m, h = 0, wi[s, W_AUX]
        while h >= 0:
            if aux[h, 1] >> 56 == SKETCH:
                if m < 64:  # insertion sort: most windows hold few buckets
                    j = m
                    while j > 0 and buckets[j - 1] > aux[h, 1]:
                        buckets[j], counts[j] = buckets[j - 1], counts[j - 1]
                        j -= 1
                    buckets[j], counts[j] = aux[h, 1], aux[h, 2]
                else:
                    buckets[m], counts[m] = aux[h, 1], aux[h, 2]
                m += 1
            h = aux[h, 3]
        if m > 64:
            order = np.argsort(buckets)
            buckets, counts = buckets[order], counts[order]
        of[o, V_P50], of[o, V_P95], of[o, V_P99] = quantile(buckets, counts, n, 0.5), quantile(buckets, counts, n, 0.95), quantile(buckets, counts, n, 0.99)
    if cfg[DISTINCT]:
        registers = np.zeros(HLL_M, np.uint8)
        h = wi[s, W_AUX]
        while h >= 0:
            if aux[h, 1] >> 56 == REGISTER:
                registers[aux[h, 1] & (HLL_M - 1)] = aux[h, 2]
            h = aux[h, 3]
        oi[o, O_DISTINCT] = cardinality(registers)
    if cfg[TOP]:
        k = top_item.shape[1]
        for j in range(k):
            top_item[o, j] = -1
        h = wi[s, W_AUX]
        while h >= 0:
            if aux[h, 1] >> 56 == ITEM:
                item, total = aux[h, 1] & ((np.int64(1) << 56) - 1), auxf[h]
                j = k
                while j > 0 and (
                    top_item[o, j - 1] < 0
                    or total > top_sum[o, j - 1]
                    or (total == top_sum[o, j - 1] and item_before(item, top_item[o, j - 1], arena, at))
                ):
                    j -= 1
                if j < k:
                    for x in range(k - 1, j, -1):
                        top_item[o, x], top_sum[o, x] = top_item[o, x - 1], top_sum[o, x - 1]
                    top_item[o, j], top_sum[o, j] = item, total
            h = aux[h, 3]


@njit(cache=True, nogil=True)
def unlink(k, st, ki):
    """Take key k out of the list of keys with open windows."""
    a, b = ki[k, K_PREV], ki[k, K_NEXT]
    if a >= 0:
        ki[a, K_NEXT] = b
    else:
        st[OLDEST] = b
    if b >= 0:
        ki[b, K_PREV] = a
    else:
        st[NEWEST] = a


@njit(cache=True, nogil=True)
def append(k, st, ki):
    """Put key k at the end, the place of the one heard last."""
    ki[k, K_PREV], ki[k, K_NEXT] = st[NEWEST], -1
    if st[NEWEST] >= 0:
        ki[st[NEWEST], K_NEXT] = k
    else:
        st[OLDEST] = k
    st[NEWEST] = k


@njit(cache=True, nogil=True)
def row_of(s, call, st, wi):
    """Return the output row of window s: its earlier one of this call, which the new value replaces, or the next."""
    if wi[s, W_OUT] >> 20 == call:
        return wi[s, W_OUT] & ((1 << 20) - 1)
    o = st[N_OUT]
    wi[s, W_OUT] = (call << 20) | o
    st[N_OUT] = o + 1
    return o


@njit(cache=True, nogil=True)
def release(s, st, wi, free, table):
    """Forget window s: out of the table (backward shift), its uid dead, its slot free."""
    mask = len(table) - 1
    h = np.int64(mix(wi[s, W_KEY], wi[s, W_START])) & mask
    while table[h] != s:
        h = (h + 1) & mask
    j = h
    while True:
        j = (j + 1) & mask
        x = table[j]
        if x == -1:
            break
        home = np.int64(mix(wi[x, W_KEY], wi[x, W_START])) & mask
        if (j - home) & mask >= (j - h) & mask:
            table[h] = x
            h = j
    table[h] = -1
    wi[s, W_KEY] = -1
    wi[s, W_GEN] = (wi[s, W_GEN] + 1) & 0x3FFFFFFF
    free[st[N_FREE]] = s
    st[N_FREE] += 1


@njit(cache=True, nogil=True)
def close_key(k, limit, offset, call, room, cfg, st, ki, wi, wf, free, table, aux, auxf, oi, of, top_item, top_sum, arena, at):
    """Close key k's windows that end at or before ``limit``. Return False when the output is full first."""
    p, s = np.int64(-1), ki[k, K_HEAD]
    while s >= 0:
        nxt = wi[s, W_NEXT]
        if wi[s, W_START] + cfg[SIZE] <= limit:
            if st[N_OUT] > room:
                return False
            emit(s, row_of(s, call, st, wi), 1, offset, cfg, wi, wf, aux, auxf, oi, of, top_item, top_sum, arena, at)
            if p >= 0:
                wi[p, W_NEXT] = nxt
            else:
                ki[k, K_HEAD] = nxt
                if nxt < 0:
                    unlink(k, st, ki)
            release(s, st, wi, free, table)
        else:
            p = s
        s = nxt
    return True


@njit(cache=True, nogil=True)
def open_window(k, start, t, cfg, st, ki, wi, wf, free, table, ends):
    """Take a slot for (k, start) and link it: by key, or by end when the partition's time closes windows."""
    st[N_FREE] -= 1
    s = free[st[N_FREE]]
    mask = len(table) - 1
    h = np.int64(mix(k, start)) & mask
    while table[h] != -1:
        h = (h + 1) & mask
    table[h] = s
    wi[s, W_KEY], wi[s, W_START], wi[s, W_COUNT], wi[s, W_DUP] = k, start, 0, 0
    wi[s, W_EARLY], wi[s, W_FIRST_T], wi[s, W_LAST_T], wi[s, W_AUX], wi[s, W_OUT] = t + cfg[EARLY], 0, 0, -1, -1
    for j in range(N_WF):
        wf[s, j] = 0.0
    if cfg[MODE] == BY_KEY:
        if ki[k, K_HEAD] < 0:
            append(k, st, ki)
        wi[s, W_NEXT] = ki[k, K_HEAD]
        ki[k, K_HEAD] = s
        return s
    end, j = start + cfg[SIZE], st[N_ENDS]
    while j > 0 and ends[j - 1, 0] > end:
        j -= 1
    if j > 0 and ends[j - 1, 0] == end:
        wi[s, W_NEXT] = ends[j - 1, 1]
        ends[j - 1, 1] = s
    else:
        for x in range(st[N_ENDS], j, -1):
            ends[x, 0], ends[x, 1] = ends[x - 1, 0], ends[x - 1, 1]
        ends[j, 0], ends[j, 1] = end, s
        wi[s, W_NEXT] = -1
        st[N_ENDS] += 1
    return s


@njit(cache=True, nogil=True)
def find_window(k, start, wi, table):
    """Return the slot of (k, start), or −1."""
    mask = len(table) - 1
    h = np.int64(mix(k, start)) & mask
    while table[h] != -1:
        s = table[h]
        if wi[s, W_KEY] == k and wi[s, W_START] == start:
            return s
        h = (h + 1) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)
def repeated(s, a, b, wi, ids, st):
    """Tell whether identity (a, b) is in window s already; if not, it is from now on."""
    mask = len(ids) - 1
    uid = (wi[s, W_GEN] << 32) | s
    g = np.int64(mix(mix(uid, a), b)) & mask
    while ids[g, 0] != -1:
        if ids[g, 0] == uid and ids[g, 1] == a and ids[g, 2] == b:
            return True
        g = (g + 1) & mask
    ids[g, 0], ids[g, 1], ids[g, 2] = uid, a, b
    st[N_IDS] += 1
    return False


@njit(cache=True, nogil=True)
def aggregate(s, t, v, distinct, item, cfg, wi, wf, aux, auxf, st):
    """Fold one event into window s."""
    n = wi[s, W_COUNT] + 1
    wi[s, W_COUNT] = n
    if n == 1:
        wi[s, W_FIRST_T], wi[s, W_LAST_T] = t, t
        wf[s, F_MIN], wf[s, F_MAX], wf[s, F_FIRST], wf[s, F_LAST], wf[s, F_V1] = v, v, v, v, v
    else:
        if v < wf[s, F_MIN]:
            wf[s, F_MIN] = v
        if v > wf[s, F_MAX]:
            wf[s, F_MAX] = v
        if t < wi[s, W_FIRST_T]:
            wi[s, W_FIRST_T], wf[s, F_FIRST] = t, v
        if t >= wi[s, W_LAST_T]:
            wi[s, W_LAST_T], wf[s, F_LAST] = t, v
    wf[s, F_SUM] += v
    d = v - wf[s, F_V1]
    wf[s, F_S1] += d
    wf[s, F_S2] += d * d
    if cfg[QUANTILES]:
        add_aux(s, bucket_of(v), 1, True, wi, aux, st)
    if cfg[DISTINCT] and distinct != np.uint64(0):  # 0: null
        register = np.int64(np.uint64(distinct) >> np.uint64(64 - HLL_P))
        rest = np.uint64(distinct) << np.uint64(HLL_P)
        rank = np.int64(1)
        while rank <= 64 - HLL_P and (rest >> np.uint64(63)) == np.uint64(0):
            rest <<= np.uint64(1)
            rank += 1
        add_aux(s, (np.int64(REGISTER) << 56) | register, rank, False, wi, aux, st)
    if cfg[TOP] and item >= 0:
        add_item(s, item, v if cfg[HAS_VALUE] else 1.0, wi, aux, auxf, st)


@njit(cache=True, nogil=True)
def fold(
    kind, off, t, key, rkey, ida, idb, v, distinct, item, up, late,
    cfg, st, ups, ki, rhead, wi, wf, free, table, ids, aux, auxf, ends, oi, of, top_item, top_sum, arena, at,
):  # fmt: skip
    """Handle records until done or until a table is too full; return how many were handled.

    Per record (length n): kind, offset, time, dense key id, dense record-key id (−1: none), identity words (NEG, NEG: none), value, distinct
    hash, item id, upstream partition (−1: not known). ``late[j] = (record, late_by_ms, closed_through)``. What stopped the
    loop is ``st[NEED]``; rows are in ``oi``, ``of`` and their number in ``st[N_OUT]``, late ones in ``st[N_LATE_OUT]``.
    """
    size, hop, lateness, early = cfg[SIZE], cfg[HOP], cfg[LATENESS], cfg[EARLY]
    mode = cfg[MODE]
    cover = size // hop
    per_event = cover * (1 if cfg[QUANTILES] + cfg[DISTINCT] + cfg[TOP] <= 1 else 3)
    room = len(oi) - cover  # closing stops here, so that an event's own early rows always fit
    st[CALL] += 1
    call = st[CALL]
    st[N_OUT] = 0
    st[N_LATE_OUT] = 0
    st[NEED] = ROOM_OK
    for i in range(len(t)):
        if st[N_FREE] < cover:
            st[NEED] = ROOM_WINDOWS
            return i
        if (st[N_IDS] + cover) * 2 > len(ids):
            st[NEED] = ROOM_IDS
            return i
        if (st[N_AUX] + per_event) * 2 > len(aux):
            st[NEED] = ROOM_AUX
            return i
        if st[N_ENDS] + cover > len(ends):
            st[NEED] = ROOM_ENDS
            return i
        if st[N_OUT] + cover > len(oi):
            st[NEED] = ROOM_ROWS
            return i
        if st[RESUME] == 0:
            # 1. the partition's time
            if mode == REKEYED:
                if kind[i] == PARTITION_TICK and up[i] >= 0:
                    if t[i] > ups[up[i]]:
                        ups[up[i]] = t[i]
                    least = ups[0]
                    for j in range(1, len(ups)):
                        least = min(least, ups[j])
                    if least > st[P]:
                        st[P] = least
            elif kind[i] != KEYED_TICK and t[i] > st[P]:
                st[P] = t[i]
            now = st[P]
            # 2. idle keys, the longest silent first; or, by the partition's time, every window that has ended
            if mode == BY_KEY:
                if kind[i] != KEYED_TICK:
                    while st[OLDEST] >= 0 and now - ki[st[OLDEST], K_HEARD] >= cfg[IDLE]:
                        q = st[OLDEST]
                        s = ki[q, K_HEAD]
                        while s >= 0:
                            ki[q, K_CLOSED] = max(ki[q, K_CLOSED], wi[s, W_START] + size)
                            s = wi[s, W_NEXT]
                        if not close_key(q, np.int64(1 << 62), off[i], call, room, cfg, st, ki, wi, wf, free, table, aux, auxf, oi, of, top_item, top_sum, arena, at):
                            st[NEED] = ROOM_ROWS
                            return i
            elif now > NEG:
                through = (now - lateness - size) // hop * hop + size
                if through > st[CLOSED]:
                    st[CLOSED] = through
                m = 0
                while m < st[N_ENDS] and ends[m, 0] <= through:
                    full = False
                    while ends[m, 1] >= 0:
                        if st[N_OUT] > room:
                            full = True
                            break
                        s = ends[m, 1]
                        emit(s, row_of(s, call, st, wi), 1, off[i], cfg, wi, wf, aux, auxf, oi, of, top_item, top_sum, arena, at)
                        ends[m, 1] = wi[s, W_NEXT]
                        release(s, st, wi, free, table)
                    if full:
                        break
                    m += 1
                if m > 0:
                    for x in range(m, st[N_ENDS]):
                        ends[x - m, 0], ends[x - m, 1] = ends[x, 0], ends[x, 1]
                    st[N_ENDS] -= m
                if st[N_ENDS] > 0 and ends[0, 0] <= through:
                    st[NEED] = ROOM_ROWS
                    return i
        now = st[P]
        if kind[i] == PARTITION_TICK:
            st[N_TICKS] += 1
            continue
        if kind[i] == KEYED_TICK:
            if mode == BY_KEY and rkey[i] >= 0:
                k = rhead[rkey[i]]
                while k >= 0:
                    ki[k, K_HEARD] = now
                    if ki[k, K_HEAD] >= 0 and st[NEWEST] != k:
                        unlink(k, st, ki)
                        append(k, st, ki)
                    if t[i] > ki[k, K_TIME]:
                        ki[k, K_TIME] = t[i]
                    ki[k, K_CLOSED] = max(ki[k, K_CLOSED], (ki[k, K_TIME] - lateness - size) // hop * hop + size)
                    if not close_key(k, ki[k, K_TIME] - lateness, off[i], call, room, cfg, st, ki, wi, wf, free, table, aux, auxf, oi, of, top_item, top_sum, arena, at):
                        st[NEED] = ROOM_ROWS
                        return i
                    k = ki[k, K_SIBLING]
            st[N_TICKS] += 1
            continue
        k = key[i]
        if st[RESUME] == 0:
            if ki[k, K_SIBLING] == UNKNOWN:
                if rkey[i] >= 0:
                    ki[k, K_SIBLING] = rhead[rkey[i]]
                    rhead[rkey[i]] = k
                else:
                    ki[k, K_SIBLING] = -1
            # 3. heard
            if mode == BY_KEY:
                ki[k, K_HEARD] = now
                if ki[k, K_HEAD] >= 0 and st[NEWEST] != k:
                    unlink(k, st, ki)
                    append(k, st, ki)
            closed = ki[k, K_CLOSED] if mode == BY_KEY else st[CLOSED]
            any_agg, any_dup = False, False
            identified = cfg[IDENTITY] and (ida[i] != NEG or idb[i] != NEG)
            start = t[i] // hop * hop
            for _ in range(cover):
                # 4. late
                if start + size > closed:
                    s = ki[k, K_CURRENT]
                    if s < 0 or wi[s, W_KEY] != k or wi[s, W_START] != start:
                        s = find_window(k, start, wi, table)
                        if s < 0:
                            s = open_window(k, start, t[i], cfg, st, ki, wi, wf, free, table, ends)
                        ki[k, K_CURRENT] = s
                    # 5. duplicate
                    if identified and repeated(s, ida[i], idb[i], wi, ids, st):
                        wi[s, W_DUP] += 1
                        any_dup = True
                    else:
                        # 6. aggregated
                        any_agg = True
                        aggregate(s, t[i], v[i], distinct[i], item[i], cfg, wi, wf, aux, auxf, st)
                        if early > 0 and t[i] >= wi[s, W_EARLY]:
                            wi[s, W_EARLY] = t[i] + early
                            emit(s, row_of(s, call, st, wi), 0, off[i], cfg, wi, wf, aux, auxf, oi, of, top_item, top_sum, arena, at)
                start -= hop
            if any_agg:
                st[N_AGG] += 1
            elif any_dup:
                st[N_DUP] += 1
            else:
                st[N_LATE] += 1
                j = st[N_LATE_OUT]
                late[j, 0], late[j, 1], late[j, 2] = i, closed - t[i], closed
                st[N_LATE_OUT] = j + 1
            if not any_agg or mode != BY_KEY:
                continue
            if t[i] > ki[k, K_TIME]:
                ki[k, K_TIME] = t[i]
                ki[k, K_CLOSED] = max(ki[k, K_CLOSED], (t[i] - lateness - size) // hop * hop + size)
        st[RESUME] = 1
        if not close_key(k, ki[k, K_TIME] - lateness, off[i], call, room, cfg, st, ki, wi, wf, free, table, aux, auxf, oi, of, top_item, top_sum, arena, at):
            st[NEED] = ROOM_ROWS
            return i
        st[RESUME] = 0
    return len(t)
