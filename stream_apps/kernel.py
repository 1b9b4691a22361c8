"""The window engine: docs/reference/semantics.md as one compiled loop, one event at a time, over arrays.

Everything a window knows is one row of ``wi`` (integers) and ``wf`` (doubles), everything a key knows one row of ``ki``, so
that an event touches few cache lines. A window's sets (identities; sketch buckets, registers and items) are small
open-addressing tables of its own in one arena, in regions of 2^n entries that are freed with the window: what one event
needs lies close together, and nothing is ever swept.
`fold` stops before a record when a table is too full; the caller makes room and calls again (``fluvial.stream_apps.windows``).
"""

import numpy as np

from fluvial.compiling import njit
from fluvial.stream_apps.arena import allocate, aux_place, give_back, has_room, repeated
from fluvial.stream_apps.emission import emit, row_of
from fluvial.stream_apps.layout import (
    BY_KEY,
    CALL,
    CLOSED,
    DISTINCT,
    EARLY,
    F_FIRST,
    F_LAST,
    F_MAX,
    F_MIN,
    F_S1,
    F_S2,
    F_SUM,
    F_V1,
    FIRST_CLASS,
    HAS_VALUE,
    HOP,
    IDENTITY,
    IDLE,
    ITEM,
    K_CLOSED,
    K_CURRENT,
    K_HEAD,
    K_HEARD,
    K_NEXT,
    K_PREV,
    K_SIBLING,
    K_TIME,
    KEYED_TICK,
    LATENESS,
    MODE,
    N_AGG,
    N_DUP,
    N_ENDS,
    N_FREE,
    N_LATE,
    N_LATE_OUT,
    N_OUT,
    N_TICKS,
    N_WF,
    NEED,
    NEG,
    NEWEST,
    OLDEST,
    PARTITION_TICK,
    QUANTILES,
    REGISTER,
    REKEYED,
    RESUME,
    ROOM_ARENA,
    ROOM_ENDS,
    ROOM_OK,
    ROOM_ROWS,
    ROOM_WINDOWS,
    SIZE,
    TOP,
    UNKNOWN,
    W_AUX,
    W_AUX_CLASS,
    W_AUX_COUNT,
    W_COUNT,
    W_DUP,
    W_EARLY,
    W_FIRST_T,
    W_IDS,
    W_IDS_CLASS,
    W_IDS_COUNT,
    W_KEY,
    W_LAST_T,
    W_NEXT,
    W_OUT,
    W_START,
    P,
)
from fluvial.stream_apps.prefetch import prefetch
from fluvial.stream_apps.sketches import HLL_P, bucket_of, mix

# How many records ahead the key, its window, and the window's sets are asked for.
AHEAD_KEY, AHEAD_WINDOW, AHEAD_SETS = 24, 16, 8


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
def close_key(
    k,
    limit,
    offset,
    call,
    room,
    cfg,
    st,
    ki,
    wi,
    wf,
    free,
    table,
    heads,
    arena,
    sums,
    oi,
    of,
    top_item,
    top_sum,
    names,
    at,
):
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

    Per record (length n): kind, offset, time, dense key id, dense record-key id (−1: none), identity words (NEG, NEG: none),
    value, distinct hash, item id, upstream partition (−1: not known). ``late[j] = (record, late_by_ms, closed_through)``.
    What stopped the loop is ``st[NEED]``; rows are in ``oi``, ``of``
    and their number in ``st[N_OUT]``, late ones in ``st[N_LATE_OUT]``.
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
        # With many keys, waiting for memory is what takes the time: ask for what later records need, stage by stage.
        if i + AHEAD_KEY < len(t) and key[i + AHEAD_KEY] >= 0:
            prefetch(ki, key[i + AHEAD_KEY])
        if i + AHEAD_WINDOW < len(t) and key[i + AHEAD_WINDOW] >= 0:
            s = ki[key[i + AHEAD_WINDOW], K_CURRENT]
            if ki[key[i + AHEAD_WINDOW], K_PREV] >= 0:
                prefetch(ki, ki[key[i + AHEAD_WINDOW], K_PREV])
            if ki[key[i + AHEAD_WINDOW], K_NEXT] >= 0:
                prefetch(ki, ki[key[i + AHEAD_WINDOW], K_NEXT])
            if s >= 0:
                prefetch(wi, s)
                prefetch(wi[:, 8:], s)
                prefetch(wf, s)
        if i + AHEAD_SETS < len(t) and key[i + AHEAD_SETS] >= 0:
            s = ki[key[i + AHEAD_SETS], K_CURRENT]
            if s >= 0:
                mask = (np.int64(1) << wi[s, W_IDS_CLASS]) - 1
                prefetch(arena, wi[s, W_IDS] + (np.int64(mix(ida[i + AHEAD_SETS], idb[i + AHEAD_SETS])) & mask))
                prefetch(arena, wi[s, W_AUX])
                prefetch(arena, wi[s, W_AUX] + 4)
                prefetch(arena, wi[s, W_AUX] + 8)
                prefetch(arena, wi[s, W_AUX] + 12)
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
                        if not close_key(
                            q,
                            np.int64(1 << 62),
                            off[i],
                            call,
                            room,
                            cfg,
                            st,
                            ki,
                            wi,
                            wf,
                            free,
                            table,
                            heads,
                            arena,
                            sums,
                            oi,
                            of,
                            top_item,
                            top_sum,
                            names,
                            at,
                        ):
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
                        emit(
                            s,
                            row_of(s, call, st, wi),
                            1,
                            off[i],
                            cfg,
                            wi,
                            wf,
                            arena,
                            sums,
                            oi,
                            of,
                            top_item,
                            top_sum,
                            names,
                            at,
                        )
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
                    if not close_key(
                        k,
                        ki[k, K_TIME] - lateness,
                        off[i],
                        call,
                        room,
                        cfg,
                        st,
                        ki,
                        wi,
                        wf,
                        free,
                        table,
                        heads,
                        arena,
                        sums,
                        oi,
                        of,
                        top_item,
                        top_sum,
                        names,
                        at,
                    ):
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
                    if (
                        s < 0
                        or (wi[s, W_IDS_COUNT] + 1) * 4 > 3 << wi[s, W_IDS_CLASS]
                        or (wi[s, W_AUX_COUNT] + adds) * 4 > 3 << wi[s, W_AUX_CLASS]
                    ):
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
                            emit(
                                s,
                                row_of(s, call, st, wi),
                                0,
                                off[i],
                                cfg,
                                wi,
                                wf,
                                arena,
                                sums,
                                oi,
                                of,
                                top_item,
                                top_sum,
                                names,
                                at,
                            )
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
        if not close_key(
            k,
            ki[k, K_TIME] - lateness,
            off[i],
            call,
            room,
            cfg,
            st,
            ki,
            wi,
            wf,
            free,
            table,
            heads,
            arena,
            sums,
            oi,
            of,
            top_item,
            top_sum,
            names,
            at,
        ):
            st[NEED] = ROOM_ROWS
            return i
        st[RESUME] = 0
    return len(t)
