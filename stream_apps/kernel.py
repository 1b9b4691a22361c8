"""The window engine: docs/reference/semantics.md as one compiled loop, one event at a time, over arrays.

Everything a window knows is one row of ``wi`` (integers) and ``wf`` (doubles), everything a key knows one row of ``ki``, so
that an event touches few cache lines. A window's sets (identities; sketch buckets, registers and items) are small
open-addressing tables of its own in one arena, in regions of 2^n entries that are freed with the window: what one event
needs lies close together, and nothing is ever swept.
`fold` stops before a record when a table is too full; the caller makes room and calls again (``fluvial.stream_apps.windows``).
"""

import math

import numpy as np
from numba import njit

NEG = -(1 << 62)
EVENT, PARTITION_TICK, KEYED_TICK = 0, 1, 2
BY_KEY, BY_PARTITION, REKEYED = 0, 1, 2
ROOM_OK, ROOM_ROWS, ROOM_WINDOWS, ROOM_IDS, ROOM_ARENA, ROOM_ENDS = 0, 1, 2, 3, 4, 5

# cfg, constants of a pipeline
SIZE, HOP, LATENESS, IDLE, EARLY, MODE, HAS_VALUE, QUANTILES, DISTINCT, TOP, IDENTITY = range(11)
N_CFG = 11
# st, scalars that change
P, NEED, N_FREE, N_IDS, N_SPARE, OLDEST, NEWEST, N_LATE, N_DUP, N_AGG, CLOSED, N_ENDS, RESUME, CALL, N_OUT, N_LATE_OUT, N_TICKS, ARENA_USED = range(18)
N_ST = 18
# ki, per key
K_TIME, K_HEARD, K_CLOSED, K_HEAD, K_PREV, K_NEXT, K_CURRENT, K_SIBLING = range(8)
N_KI = 8
UNKNOWN = -2  # K_SIBLING of a key of which no event was seen yet
# wi, wf, per window
(
    W_KEY, W_START, W_NEXT, W_COUNT, W_DUP, W_EARLY, W_FIRST_T, W_LAST_T, W_OUT,
    W_IDS, W_IDS_CLASS, W_IDS_COUNT, W_AUX, W_AUX_CLASS, W_AUX_COUNT,
) = range(15)  # fmt: skip
N_WI = 16  # a whole number of cache lines
F_SUM, F_MIN, F_MAX, F_FIRST, F_LAST, F_V1, F_S1, F_S2 = range(8)
N_WF = 8
# oi, of, per emitted row
O_KEY, O_START, O_END, O_COUNT, O_DUP, O_FINAL, O_OFFSET, O_DISTINCT, O_SLOT = range(9)
N_OI = 9
V_SUM, V_MEAN, V_MIN, V_MAX, V_FIRST, V_LAST, V_STDDEV, V_P50, V_P95, V_P99 = range(10)
N_OF = 10
# kinds of aux entries: (kind << 56 | what, value)
SKETCH, REGISTER, ITEM = 0, 1, 2
# the arena's regions: 2^class entries; an entry of identities is (a, b), empty (NEG, NEG); an aux entry's empty is −1
FIRST_CLASS, N_CLASSES = 2, 48
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
def allocate(cls, empty, st, heads, arena):
    """Take a region of 2^cls entries, all empty, from its free list or the arena's end (`has_room` was asked before)."""
    n = np.int64(1) << cls
    if heads[cls, 0] >= 0:
        base = heads[cls, 0]
        heads[cls, 0] = arena[base, 1]
        heads[cls, 1] -= 1
    else:
        base = st[ARENA_USED]
        st[ARENA_USED] += n
    for j in range(base, base + n):
        arena[j, 0], arena[j, 1] = empty, empty
    return base


@njit(cache=True, nogil=True)
def give_back(base, cls, heads, arena):
    """Put a region on its free list."""
    arena[base, 1] = heads[cls, 0]
    heads[cls, 0] = base
    heads[cls, 1] += 1


@njit(cache=True, nogil=True)
def has_room(s, adds, st, wi, heads, arena, asked):
    """Tell whether window s (−1: one to be opened) can take an identity and ``adds`` aux entries without a larger arena.

    ``asked[cls]`` counts the regions that were promised for the same record before.
    """
    for kind in range(2):
        if s < 0:
            cls = np.int64(FIRST_CLASS)
            if kind == 1:
                while (np.int64(1) << cls) * 3 < adds * 4:
                    cls += 1
        else:
            cls, held, more = (wi[s, W_IDS_CLASS], wi[s, W_IDS_COUNT], np.int64(1)) if kind == 0 else (wi[s, W_AUX_CLASS], wi[s, W_AUX_COUNT], adds)
            if (held + more) * 4 <= (np.int64(1) << cls) * 3:
                continue
            cls += 1
        asked[cls] += 1
    need = np.int64(0)
    for cls in range(len(asked)):
        if asked[cls] > heads[cls, 1]:
            need += (asked[cls] - heads[cls, 1]) << cls
    return st[ARENA_USED] + need <= len(arena)


@njit(cache=True, nogil=True)
def aux_place(s, sub, wi, heads, arena, st):
    """Return where (window s, sub) stands in the arena; a new entry has value 0."""
    cls, base = wi[s, W_AUX_CLASS], wi[s, W_AUX]
    mask = (np.int64(1) << cls) - 1
    h = np.int64(mix(sub, 0)) & mask
    while arena[base + h, 0] != -1:
        if arena[base + h, 0] == sub:
            return base + h
        h = (h + 1) & mask
    if (wi[s, W_AUX_COUNT] + 1) * 4 > (mask + 1) * 3:
        larger = allocate(cls + 1, np.int64(-1), st, heads, arena)
        wide = 2 * mask + 1
        for j in range(base, base + mask + 1):
            if arena[j, 0] != -1:
                h = np.int64(mix(arena[j, 0], 0)) & wide
                while arena[larger + h, 0] != -1:
                    h = (h + 1) & wide
                arena[larger + h, 0], arena[larger + h, 1] = arena[j, 0], arena[j, 1]
        give_back(base, cls, heads, arena)
        wi[s, W_AUX], wi[s, W_AUX_CLASS] = larger, cls + 1
        base, mask = larger, wide
        h = np.int64(mix(sub, 0)) & mask
        while arena[base + h, 0] != -1:
            h = (h + 1) & mask
    arena[base + h, 0], arena[base + h, 1] = sub, 0
    wi[s, W_AUX_COUNT] += 1
    return base + h


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
        of[o, V_MIN], of[o, V_MAX], of[o, V_FIRST], of[o, V_LAST] = wf[s, F_MIN], wf[s, F_MAX], wf[s, F_FIRST], wf[s, F_LAST]
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
        of[o, V_P50], of[o, V_P95], of[o, V_P99] = quantile(buckets, counts, n, 0.5), quantile(buckets, counts, n, 0.95), quantile(buckets, counts, n, 0.99)
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
def release(s, st, wi, free, table, heads, arena):
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
    give_back(wi[s, W_IDS], wi[s, W_IDS_CLASS], heads, arena)
    give_back(wi[s, W_AUX], wi[s, W_AUX_CLASS], heads, arena)
    wi[s, W_KEY] = -1
    free[st[N_FREE]] = s
    st[N_FREE] += 1


@njit(cache=True, nogil=True)
def close_key(k, limit, offset, call, room, cfg, st, ki, wi, wf, free, table, heads, arena, sums, oi, of, top_item, top_sum, names, at):
    """Close key k's windows that end at or before ``limit``. Return False when the output is full first."""
    p, s = np.int64(-1), ki[k, K_HEAD]
    while s >= 0:
        nxt = wi[s, W_NEXT]
        if wi[s, W_START] + cfg[SIZE] <= limit:
            if st[N_OUT] > room:
                return False
            emit(s, row_of(s, call, st, wi), 1, offset, cfg, wi, wf, arena, sums, oi, of, top_item, top_sum, names, at)
            if p >= 0:
                wi[p, W_NEXT] = nxt
            else:
                ki[k, K_HEAD] = nxt
                if nxt < 0:
                    unlink(k, st, ki)
            release(s, st, wi, free, table, heads, arena)
        else:
            p = s
        s = nxt
    return True


@njit(cache=True, nogil=True)
def open_window(k, start, t, adds, cfg, st, ki, wi, wf, free, table, ends, heads, arena):
    """Take a slot for (k, start) and link it: by key, or by end when the partition's time closes windows."""
    st[N_FREE] -= 1
    s = free[st[N_FREE]]
    mask = len(table) - 1
    h = np.int64(mix(k, start)) & mask
    while table[h] != -1:
        h = (h + 1) & mask
    table[h] = s
    wi[s, W_KEY], wi[s, W_START], wi[s, W_COUNT], wi[s, W_DUP] = k, start, 0, 0
    wi[s, W_EARLY], wi[s, W_FIRST_T], wi[s, W_LAST_T], wi[s, W_OUT] = t + cfg[EARLY], 0, 0, -1
    cls = np.int64(FIRST_CLASS)
    wi[s, W_IDS], wi[s, W_IDS_CLASS], wi[s, W_IDS_COUNT] = allocate(cls, np.int64(NEG), st, heads, arena), cls, 0
    while (np.int64(1) << cls) * 3 < adds * 4:
        cls += 1
    wi[s, W_AUX], wi[s, W_AUX_CLASS], wi[s, W_AUX_COUNT] = allocate(cls, np.int64(-1), st, heads, arena), cls, 0
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
def current(k, start, ki, wi, table):
    """Return the slot of (k, start), the key's last used window first, or −1."""
    s = ki[k, K_CURRENT]
    if s >= 0 and wi[s, W_KEY] == k and wi[s, W_START] == start:
        return s
    return find_window(k, start, wi, table)


@njit(cache=True, nogil=True)
def repeated(s, a, b, wi, heads, arena, st):
    """Tell whether identity (a, b) is in window s already; if not, it is from now on."""
    cls, base = wi[s, W_IDS_CLASS], wi[s, W_IDS]
    mask = (np.int64(1) << cls) - 1
    first = np.int64(mix(a, b))
    h = first & mask
    while arena[base + h, 0] != NEG or arena[base + h, 1] != NEG:
        if arena[base + h, 0] == a and arena[base + h, 1] == b:
            return True
        h = (h + 1) & mask
    if (wi[s, W_IDS_COUNT] + 1) * 4 > (mask + 1) * 3:
        larger = allocate(cls + 1, np.int64(NEG), st, heads, arena)
        wide = 2 * mask + 1
        for j in range(base, base + mask + 1):
            if arena[j, 0] != NEG or arena[j, 1] != NEG:
                h = np.int64(mix(arena[j, 0], arena[j, 1])) & wide
                while arena[larger + h, 0] != NEG or arena[larger + h, 1] != NEG:
                    h = (h + 1) & wide
                arena[larger + h, 0], arena[larger + h, 1] = arena[j, 0], arena[j, 1]
        give_back(base, cls, heads, arena)
        wi[s, W_IDS], wi[s, W_IDS_CLASS] = larger, cls + 1
        base, mask = larger, wide
        h = first & mask
        while arena[base + h, 0] != NEG or arena[base + h, 1] != NEG:
            h = (h + 1) & mask
    arena[base + h, 0], arena[base + h, 1] = a, b
    wi[s, W_IDS_COUNT] += 1
    return False


@njit(cache=True, nogil=True)
def aggregate(s, t, v, distinct, item, cfg, wi, wf, heads, arena, sums, st):
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
        arena[aux_place(s, bucket_of(v), wi, heads, arena, st), 1] += 1
    if cfg[DISTINCT] and distinct != np.uint64(0):  # 0: null
        register = np.int64(np.uint64(distinct) >> np.uint64(64 - HLL_P))
        rest = np.uint64(distinct) << np.uint64(HLL_P)
        rank = np.int64(1)
        while rank <= 64 - HLL_P and (rest >> np.uint64(63)) == np.uint64(0):
            rest <<= np.uint64(1)
            rank += 1
        h = aux_place(s, (np.int64(REGISTER) << 56) | register, wi, heads, arena, st)
        arena[h, 1] = max(arena[h, 1], rank)
    if cfg[TOP] and item >= 0:
        sums[aux_place(s, (np.int64(ITEM) << 56) | item, wi, heads, arena, st), 1] += v if cfg[HAS_VALUE] else 1.0


@njit(cache=True, nogil=True)
def fold(
    kind, off, t, key, rkey, ida, idb, v, distinct, item, up, late,
    cfg, st, ups, ki, rhead, wi, wf, free, table, heads, arena, sums, ends, oi, of, top_item, top_sum, names, at,
):  # fmt: skip
    """Handle records until done or until a table is too full; return how many were handled.

    Per record (length n): kind, offset, time, dense key id, dense record-key id (−1: none), identity words (NEG, NEG: none), value, distinct
    hash, item id, upstream partition (−1: not known). ``late[j] = (record, late_by_ms, closed_through)``. What stopped the
    loop is ``st[NEED]``; rows are in ``oi``, ``of`` and their number in ``st[N_OUT]``, late ones in ``st[N_LATE_OUT]``.
    """
    size, hop, lateness, early = cfg[SIZE], cfg[HOP], cfg[LATENESS], cfg[EARLY]
    mode = cfg[MODE]
    cover = size // hop
    adds = cfg[QUANTILES] + cfg[DISTINCT] + cfg[TOP]
    asked = np.zeros(len(heads), np.int64)
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
                        if not close_key(q, np.int64(1 << 62), off[i], call, room, cfg, st, ki, wi, wf, free, table, heads, arena, sums, oi, of, top_item, top_sum, names, at):
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
                        emit(s, row_of(s, call, st, wi), 1, off[i], cfg, wi, wf, arena, sums, oi, of, top_item, top_sum, names, at)
                        ends[m, 1] = wi[s, W_NEXT]
                        release(s, st, wi, free, table, heads, arena)
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
                    if not close_key(k, ki[k, K_TIME] - lateness, off[i], call, room, cfg, st, ki, wi, wf, free, table, heads, arena, sums, oi, of, top_item, top_sum, names, at):
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
            s = ki[k, K_CURRENT]
            if cover == 1 and s >= 0 and wi[s, W_KEY] == k and wi[s, W_START] <= t[i] < wi[s, W_START] + size:
                newest = wi[s, W_START]
            else:
                newest = t[i] // hop * hop
            # Make sure of room before anything is changed: what is folded must not be folded again.
            start = newest
            grows = False
            for _ in range(cover):
                if start + size > closed:
                    s = current(k, start, ki, wi, table)
                    if s < 0 or (wi[s, W_IDS_COUNT] + 1) * 4 > 3 << wi[s, W_IDS_CLASS] or (wi[s, W_AUX_COUNT] + adds) * 4 > 3 << wi[s, W_AUX_CLASS]:
                        if not grows:
                            asked[:] = 0
                            grows = True
                        if not has_room(s, adds, st, wi, heads, arena, asked):
                            st[NEED] = ROOM_ARENA
                            return i
                start -= hop
            start = newest
            for _ in range(cover):
                # 4. late
                if start + size > closed:
                    s = current(k, start, ki, wi, table)
                    if s < 0:
                        s = open_window(k, start, t[i], adds, cfg, st, ki, wi, wf, free, table, ends, heads, arena)
                    ki[k, K_CURRENT] = s
                    # 5. duplicate
                    if identified and repeated(s, ida[i], idb[i], wi, heads, arena, st):
                        wi[s, W_DUP] += 1
                        any_dup = True
                    else:
                        # 6. aggregated
                        any_agg = True
                        aggregate(s, t[i], v[i], distinct[i], item[i], cfg, wi, wf, heads, arena, sums, st)
                        if early > 0 and t[i] >= wi[s, W_EARLY]:
                            wi[s, W_EARLY] = t[i] + early
                            emit(s, row_of(s, call, st, wi), 0, off[i], cfg, wi, wf, arena, sums, oi, of, top_item, top_sum, names, at)
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
            if t[i] <= ki[k, K_TIME]:
                continue
            ki[k, K_TIME] = t[i]
            if t[i] - lateness < ki[k, K_CLOSED] + hop:
                continue
            ki[k, K_CLOSED] = (t[i] - lateness - size) // hop * hop + size
        st[RESUME] = 1
        if not close_key(k, ki[k, K_TIME] - lateness, off[i], call, room, cfg, st, ki, wi, wf, free, table, heads, arena, sums, oi, of, top_item, top_sum, names, at):
            st[NEED] = ROOM_ROWS
            return i
        st[RESUME] = 0
    return len(t)
