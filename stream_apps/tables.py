"""Rebuilding the window engine's tables: after growth, and from a checkpoint."""

import numpy as np

from fluvial.compiling import njit
from fluvial.stream_apps.arena import allocate, aux_place, repeated
from fluvial.stream_apps.layout import (
    NEG,
    W_AUX,
    W_AUX_CLASS,
    W_AUX_COUNT,
    W_IDS,
    W_IDS_CLASS,
    W_IDS_COUNT,
    W_KEY,
    W_START,
)
from fluvial.stream_apps.sketches import mix


@njit(cache=True, nogil=True)
def rebuild_windows(wi, table):
    """Fill an empty table (−1) with the slots of all open windows."""
    mask = len(table) - 1
    for s in range(len(wi)):
        if wi[s, W_KEY] >= 0:
            h = np.int64(mix(wi[s, W_KEY], wi[s, W_START])) & mask
            while table[h] != -1:
                h = (h + 1) & mask
            table[h] = s


@njit(cache=True, nogil=True)
def kept_entries(wi, arena):
    """Return (identities, aux entries) of all open windows as rows (slot, word, word)."""
    n, m = 0, 0
    for s in range(len(wi)):
        if wi[s, W_KEY] >= 0:
            n += wi[s, W_IDS_COUNT]
            m += wi[s, W_AUX_COUNT]
    ids, aux = np.empty((n, 3), np.int64), np.empty((m, 3), np.int64)
    n, m = 0, 0
    for s in range(len(wi)):
        if wi[s, W_KEY] >= 0:
            for j in range(wi[s, W_IDS], wi[s, W_IDS] + (np.int64(1) << wi[s, W_IDS_CLASS])):
                if arena[j, 0] != NEG or arena[j, 1] != NEG:
                    ids[n, 0], ids[n, 1], ids[n, 2] = s, arena[j, 0], arena[j, 1]
                    n += 1
            for j in range(wi[s, W_AUX], wi[s, W_AUX] + (np.int64(1) << wi[s, W_AUX_CLASS])):
                if arena[j, 0] != -1:
                    aux[m, 0], aux[m, 1], aux[m, 2] = s, arena[j, 0], arena[j, 1]
                    m += 1
    return ids, aux


@njit(cache=True, nogil=True)
def arena_size(wi):
    """Return how many entries the regions of all open windows take."""
    n = np.int64(0)
    for s in range(len(wi)):
        if wi[s, W_KEY] >= 0:
            n += (np.int64(1) << wi[s, W_IDS_CLASS]) + (np.int64(1) << wi[s, W_AUX_CLASS])
    return n


@njit(cache=True, nogil=True)
def refill_arena(wi, ids, aux, st, heads, arena):
    """Give every open window regions of the sizes that it had, in a new arena, and put its entries back."""
    for s in range(len(wi)):
        if wi[s, W_KEY] >= 0:
            wi[s, W_IDS] = allocate(wi[s, W_IDS_CLASS], np.int64(NEG), st, heads, arena)
            wi[s, W_AUX] = allocate(wi[s, W_AUX_CLASS], np.int64(-1), st, heads, arena)
            wi[s, W_IDS_COUNT], wi[s, W_AUX_COUNT] = 0, 0
    for j in range(len(ids)):
        repeated(ids[j, 0], ids[j, 1], ids[j, 2], wi, heads, arena, st)
    for j in range(len(aux)):
        arena[aux_place(aux[j, 0], aux[j, 1], wi, heads, arena, st), 1] = aux[j, 2]
