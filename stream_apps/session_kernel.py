"""The session engine: events are kept until their session is final, then folded once, in offset order.

A session that merges two others has to fold their events interleaved, as if it had always been one: so it keeps them.
"""

import math

import numpy as np

from fluvial.compiling import njit
from fluvial.stream_apps.kernel import append, unlink
from fluvial.stream_apps.layout import (
    BY_KEY,
    CALL,
    CLOSED,
    DISTINCT,
    HAS_VALUE,
    IDENTITY,
    IDLE,
    K_CLOSED,
    K_HEAD,
    K_HEARD,
    K_SIBLING,
    K_TIME,
    KEYED_TICK,
    LATENESS,
    MODE,
    N_AGG,
    N_DUP,
    N_FREE,
    N_IDS,
    N_LATE,
    N_LATE_OUT,
    N_OUT,
    N_TICKS,
    NEED,
    NEG,
    NEWEST,
    O_COUNT,
    O_DISTINCT,
    O_DUP,
    O_END,
    O_FINAL,
    O_KEY,
    O_OFFSET,
    O_SLOT,
    O_START,
    OLDEST,
    PARTITION_TICK,
    QUANTILES,
    REKEYED,
    RESUME,
    ROOM_IDS,
    ROOM_OK,
    ROOM_ROWS,
    ROOM_WINDOWS,
    SIZE,
    UNKNOWN,
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
    P,
)
from fluvial.stream_apps.sketches import HLL_M, HLL_P, bucket_of, cardinality, mix, quantile

# st, beyond the aligned engine's: free event slots, heap entries
N_FREE_EVENTS, N_HEAP = 17, 18
N_ST = 19
ROOM_EVENTS, ROOM_HEAP = 6, 7
# si, per session
S_KEY, S_START, S_LAST, S_NEXT, S_HEAD, S_TAIL, S_COUNT, S_DUP, S_GEN = range(9)
N_SI = 9
# ei, per event
E_OFFSET, E_TIME, E_A, E_B, E_SESSION, E_NEXT, E_DISTINCT = range(7)
N_EI = 7


@njit(cache=True, nogil=True)
def heap_push(heap, st, end, s, gen):
    """Add (end, session, generation) to the heap of ends, the least first."""
    i = st[N_HEAP]
    st[N_HEAP] = i + 1
    while i > 0:
        p = (i - 1) >> 1
        if heap[p, 0] <= end:
            break
        heap[i] = heap[p]
        i = p
    heap[i, 0], heap[i, 1], heap[i, 2] = end, s, gen


@njit(cache=True, nogil=True)
def heap_pop(heap, st):
    """Drop the least entry."""
    n = st[N_HEAP] - 1
    st[N_HEAP] = n
    end, s, gen = heap[n, 0], heap[n, 1], heap[n, 2]
    i = 0
    while True:
        c = 2 * i + 1
        if c >= n:
            break
        if c + 1 < n and heap[c + 1, 0] < heap[c, 0]:
            c += 1
        if end <= heap[c, 0]:
            break
        heap[i] = heap[c]
        i = c
    heap[i, 0], heap[i, 1], heap[i, 2] = end, s, gen


@njit(cache=True, nogil=True)
def emit(s, o, final, offset, cfg, si, ei, ef, oi, of):
    """Fold session s's events in offset order and write row o."""
    n = si[s, S_COUNT]
    events, offsets = np.empty(n, np.int64), np.empty(n, np.int64)
    e = si[s, S_HEAD]
    for j in range(n):
        events[j], offsets[j] = e, ei[e, E_OFFSET]
        e = ei[e, E_NEXT]
    events = events[np.argsort(offsets)]
    oi[o, O_KEY], oi[o, O_START], oi[o, O_END] = si[s, S_KEY], si[s, S_START], si[s, S_LAST] + cfg[SIZE]
    oi[o, O_COUNT], oi[o, O_DUP], oi[o, O_FINAL], oi[o, O_OFFSET], oi[o, O_SLOT] = n, si[s, S_DUP], final, offset, s
    if cfg[HAS_VALUE]:
        total, s1, s2 = 0.0, 0.0, 0.0
        v1 = ef[events[0]]
        low, high, first, last = v1, v1, v1, v1
        first_t, last_t = ei[events[0], E_TIME], ei[events[0], E_TIME]
        for j in range(n):
            v, t = ef[events[j]], ei[events[j], E_TIME]
            total += v
            d = v - v1
            s1 += d
            s2 += d * d
            if v < low:
                low = v
            if v > high:
                high = v
            if t < first_t:
                first_t, first = t, v
            if t >= last_t:
                last_t, last = t, v
        of[o, V_SUM], of[o, V_MEAN], of[o, V_MIN], of[o, V_MAX], of[o, V_FIRST], of[o, V_LAST] = (
            total,
            total / n,
            low,
            high,
            first,
            last,
        )
        of[o, V_STDDEV] = math.sqrt(max((s2 - s1 * s1 / n) / n, 0.0))
    if cfg[QUANTILES]:
        buckets = np.empty(n, np.int64)
        for j in range(n):
            buckets[j] = bucket_of(ef[events[j]])
        buckets.sort()
        ones = np.ones(n, np.int64)
        of[o, V_P50], of[o, V_P95], of[o, V_P99] = (
            quantile(buckets, ones, n, 0.5),
            quantile(buckets, ones, n, 0.95),
            quantile(buckets, ones, n, 0.99),
        )
    if cfg[DISTINCT]:
        registers = np.zeros(HLL_M, np.uint8)
        for j in range(n):
            h = np.uint64(ei[events[j], E_DISTINCT])
            if h == np.uint64(0):
                continue
            rest, rank = h << np.uint64(HLL_P), np.int64(1)
            while rank <= 64 - HLL_P and (rest >> np.uint64(63)) == np.uint64(0):
                rest <<= np.uint64(1)
                rank += 1
            r = np.int64(h >> np.uint64(64 - HLL_P))
            if rank > registers[r]:
                registers[r] = rank
        oi[o, O_DISTINCT] = cardinality(registers)


@njit(cache=True, nogil=True)
def release(s, st, si, ei, free, free_events):
    """Forget session s and its events."""
    e = si[s, S_HEAD]
    for _ in range(si[s, S_COUNT]):
        nxt = ei[e, E_NEXT]
        ei[e, E_OFFSET] = -1
        free_events[st[N_FREE_EVENTS]] = e
        st[N_FREE_EVENTS] += 1
        e = nxt
    si[s, S_KEY] = -1
    si[s, S_GEN] += 1
    free[st[N_FREE]] = s
    st[N_FREE] += 1


@njit(cache=True, nogil=True)
def unchain(k, s, st, ki, si):
    """Take session s out of key k's chain."""
    p, x = np.int64(-1), ki[k, K_HEAD]
    while x != s:
        p, x = x, si[x, S_NEXT]
    if p >= 0:
        si[p, S_NEXT] = si[s, S_NEXT]
    else:
        ki[k, K_HEAD] = si[s, S_NEXT]


@njit(cache=True, nogil=True)
def close_key(k, limit, offset, cfg, st, ki, si, ei, ef, free, free_events, oi, of):
    """Close key k's sessions that end at or before ``limit``. Return False when the output is full first."""
    had = ki[k, K_HEAD] >= 0
    s = ki[k, K_HEAD]
    while s >= 0:
        nxt = si[s, S_NEXT]
        if si[s, S_LAST] + cfg[SIZE] <= limit:
            if st[N_OUT] >= len(oi):
                return False
            emit(s, st[N_OUT], 1, offset, cfg, si, ei, ef, oi, of)
            st[N_OUT] += 1
            unchain(k, s, st, ki, si)
            release(s, st, si, ei, free, free_events)
        s = nxt
    if had and ki[k, K_HEAD] < 0:
        unlink(k, st, ki)
    return True


@njit(cache=True, nogil=True)
def fold(
    kind, off, t, key, rkey, ida, idb, v, distinct, item, up, late,
    cfg, st, ups, ki, rhead, si, ei, ef, free, free_events, ids, heap, oi, of,
):  # fmt: skip
    """As `kernel.fold`, for sessions (cfg[SIZE] is the gap)."""
    gap, lateness, mode = cfg[SIZE], cfg[LATENESS], cfg[MODE]
    imask = len(ids) - 1
    st[CALL] += 1
    st[N_OUT] = 0
    st[N_LATE_OUT] = 0
    st[NEED] = ROOM_OK
    for i in range(len(t)):
        if st[N_FREE] < 1:
            st[NEED] = ROOM_WINDOWS
            return i
        if st[N_FREE_EVENTS] < 1:
            st[NEED] = ROOM_EVENTS
            return i
        if (st[N_IDS] + 1) * 2 > len(ids):
            st[NEED] = ROOM_IDS
            return i
        if st[N_HEAP] + 2 > len(heap):
            st[NEED] = ROOM_HEAP
            return i
        if st[RESUME] == 0:
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
            if mode == BY_KEY:
                if kind[i] != KEYED_TICK:
                    while st[OLDEST] >= 0 and now - ki[st[OLDEST], K_HEARD] >= cfg[IDLE]:
                        q = st[OLDEST]
                        s = ki[q, K_HEAD]
                        while s >= 0:
                            ki[q, K_CLOSED] = max(ki[q, K_CLOSED], si[s, S_LAST] + gap)
                            s = si[s, S_NEXT]
                        if not close_key(
                            q, np.int64(1 << 62), off[i], cfg, st, ki, si, ei, ef, free, free_events, oi, of
                        ):
                            st[NEED] = ROOM_ROWS
                            return i
            elif now > NEG:
                through = now - lateness
                if through > st[CLOSED]:
                    st[CLOSED] = through
                while st[N_HEAP] > 0 and heap[0, 0] <= through:
                    s = heap[0, 1]
                    if si[s, S_KEY] < 0 or si[s, S_GEN] != heap[0, 2]:
                        heap_pop(heap, st)
                    elif si[s, S_LAST] + gap > through:
                        end, gen = si[s, S_LAST] + gap, si[s, S_GEN]
                        heap_pop(heap, st)
                        heap_push(heap, st, end, s, gen)
                    else:
                        if st[N_OUT] >= len(oi):
                            st[NEED] = ROOM_ROWS
                            return i
                        emit(s, st[N_OUT], 1, off[i], cfg, si, ei, ef, oi, of)
                        st[N_OUT] += 1
                        heap_pop(heap, st)
                        unchain(si[s, S_KEY], s, st, ki, si)
                        release(s, st, si, ei, free, free_events)
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
                    ki[k, K_CLOSED] = max(ki[k, K_CLOSED], ki[k, K_TIME] - lateness)
                    if not close_key(
                        k, ki[k, K_TIME] - lateness, off[i], cfg, st, ki, si, ei, ef, free, free_events, oi, of
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
            if mode == BY_KEY:
                ki[k, K_HEARD] = now
                if ki[k, K_HEAD] >= 0 and st[NEWEST] != k:
                    unlink(k, st, ki)
                    append(k, st, ki)
            closed = ki[k, K_CLOSED] if mode == BY_KEY else st[CLOSED]
            if t[i] + gap <= closed:
                st[N_LATE] += 1
                j = st[N_LATE_OUT]
                late[j, 0], late[j, 1], late[j, 2] = i, closed - t[i], closed
                st[N_LATE_OUT] = j + 1
                continue
            g = np.int64(mix(mix(k, ida[i]), idb[i])) & imask
            identified = cfg[IDENTITY] and (ida[i] != NEG or idb[i] != NEG)
            if identified:
                twin = np.int64(-1)
                while ids[g, 0] != -1:
                    e = ids[g, 0]
                    if ei[e, E_OFFSET] == ids[g, 1] and ei[e, E_A] == ida[i] and ei[e, E_B] == idb[i]:
                        s = ei[e, E_SESSION]
                        if (
                            si[s, S_KEY] == k
                            and si[s, S_START] - gap <= t[i] <= si[s, S_LAST] + gap
                            and (twin < 0 or si[s, S_START] < si[twin, S_START])
                        ):
                            twin = s
                    g = (g + 1) & imask
                if twin >= 0:
                    si[twin, S_DUP] += 1
                    st[N_DUP] += 1
                    continue
            # the session that the event joins takes in all others near it
            home, s = np.int64(-1), ki[k, K_HEAD]
            while s >= 0:
                nxt = si[s, S_NEXT]
                if si[s, S_START] - gap <= t[i] <= si[s, S_LAST] + gap:
                    if home < 0:
                        home = s
                    else:
                        a, b = (home, s) if si[home, S_COUNT] >= si[s, S_COUNT] else (s, home)
                        e = si[b, S_HEAD]
                        for _ in range(si[b, S_COUNT]):
                            ei[e, E_SESSION] = a
                            e = ei[e, E_NEXT]
                        ei[si[a, S_TAIL], E_NEXT] = si[b, S_HEAD]
                        si[a, S_TAIL] = si[b, S_TAIL]
                        si[a, S_COUNT] += si[b, S_COUNT]
                        si[a, S_DUP] += si[b, S_DUP]
                        si[a, S_START] = min(si[a, S_START], si[b, S_START])
                        si[a, S_LAST] = max(si[a, S_LAST], si[b, S_LAST])
                        unchain(k, b, st, ki, si)
                        si[b, S_COUNT] = 0
                        release(b, st, si, ei, free, free_events)
                        home = a
                s = nxt
            if home < 0:
                st[N_FREE] -= 1
                home = free[st[N_FREE]]
                si[home, S_KEY], si[home, S_START], si[home, S_LAST] = k, t[i], t[i]
                si[home, S_HEAD], si[home, S_TAIL], si[home, S_COUNT], si[home, S_DUP] = -1, -1, 0, 0
                if mode == BY_KEY and ki[k, K_HEAD] < 0:
                    append(k, st, ki)
                si[home, S_NEXT] = ki[k, K_HEAD]
                ki[k, K_HEAD] = home
                if mode != BY_KEY:
                    heap_push(heap, st, t[i] + gap, home, si[home, S_GEN])
            st[N_FREE_EVENTS] -= 1
            e = free_events[st[N_FREE_EVENTS]]
            ei[e, E_OFFSET], ei[e, E_TIME], ei[e, E_A], ei[e, E_B] = off[i], t[i], ida[i], idb[i]
            ei[e, E_SESSION], ei[e, E_NEXT], ei[e, E_DISTINCT] = home, -1, np.int64(distinct[i])
            ef[e] = v[i]
            if si[home, S_TAIL] >= 0:
                ei[si[home, S_TAIL], E_NEXT] = e
            else:
                si[home, S_HEAD] = e
            si[home, S_TAIL] = e
            si[home, S_COUNT] += 1
            si[home, S_START] = min(si[home, S_START], t[i])
            si[home, S_LAST] = max(si[home, S_LAST], t[i])
            if identified:
                ids[g, 0], ids[g, 1] = e, off[i]
                st[N_IDS] += 1
            st[N_AGG] += 1
            if mode != BY_KEY:
                continue
            if t[i] > ki[k, K_TIME]:
                ki[k, K_TIME] = t[i]
            ki[k, K_CLOSED] = max(ki[k, K_CLOSED], ki[k, K_TIME] - lateness)
        st[RESUME] = 1
        if not close_key(k, ki[k, K_TIME] - lateness, off[i], cfg, st, ki, si, ei, ef, free, free_events, oi, of):
            st[NEED] = ROOM_ROWS
            return i
        st[RESUME] = 0
    return len(t)


@njit(cache=True, nogil=True)
def fill_ids(si, ei, ids):
    """Put the identities of all kept events into the empty table; return their number."""
    mask, n = len(ids) - 1, 0
    for e in range(len(ei)):
        if ei[e, E_OFFSET] >= 0 and (ei[e, E_A] != NEG or ei[e, E_B] != NEG):
            g = np.int64(mix(mix(si[ei[e, E_SESSION], S_KEY], ei[e, E_A]), ei[e, E_B])) & mask
            while ids[g, 0] != -1:
                g = (g + 1) & mask
            ids[g, 0], ids[g, 1] = e, ei[e, E_OFFSET]
            n += 1
    return n


@njit(cache=True, nogil=True)
def fill_heap(si, gap, heap, st):
    """Push the end of every open session."""
    st[N_HEAP] = 0
    for s in range(len(si)):
        if si[s, S_KEY] >= 0:
            heap_push(heap, st, si[s, S_LAST] + gap, s, si[s, S_GEN])
