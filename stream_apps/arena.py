"""A window's sets as regions of one arena: 2^class entries each, open addressing, freed with the window."""

import numpy as np

from fluvial.compiling import njit
from fluvial.stream_apps.layout import (
    ARENA_USED,
    FIRST_CLASS,
    NEG,
    W_AUX,
    W_AUX_CLASS,
    W_AUX_COUNT,
    W_IDS,
    W_IDS_CLASS,
    W_IDS_COUNT,
)
from fluvial.stream_apps.sketches import mix


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
            cls, held, more = (
                (wi[s, W_IDS_CLASS], wi[s, W_IDS_COUNT], np.int64(1))
                if kind == 0
                else (wi[s, W_AUX_CLASS], wi[s, W_AUX_COUNT], adds)
            )
            if (held + more) * 4 <= (np.int64(1) << cls) * 3:
                continue
            cls += 1
        asked[cls] += 1
    need = np.int64(0)
    for c in range(len(asked)):
        if asked[c] > heads[c, 1]:
            need += (asked[c] - heads[c, 1]) << c
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
