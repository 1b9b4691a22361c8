"""Rebuilding the window engine's tables: after growth, and from a checkpoint."""

import numpy as np

from fluvial.compiling import njit
from fluvial.stream_apps.layout import W_AUX, W_AUX_CLASS, W_IDS, W_IDS_CLASS, W_KEY, W_OUT, W_START
from fluvial.stream_apps.prefetch import prefetch
from fluvial.stream_apps.sketches import mix

# How many windows ahead their sets are asked for.
AHEAD_SETS = 12


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
def slots_used(first_column):
    """Return one more than the last slot that is taken (its first column is not negative)."""
    n = len(first_column)
    while n > 0 and first_column[n - 1] < 0:
        n -= 1
    return n


@njit(cache=True, nogil=True)
def take_sets(wi, arena, every, sets, bounds):
    """Copy the regions of all open windows, in the order of their slots, to ``sets``; return how many entries that is.

    ``wi`` is a copy: what means nothing elsewhere (places in the arena, rows of the output) is taken out of it.
    ``bounds[i]`` becomes the entry at which slot i · ``every`` begins, and its last element the number of entries.
    """
    n, ahead = np.int64(0), AHEAD_SETS
    for s in range(len(wi)):
        if s + ahead < len(wi) and wi[s + ahead, W_KEY] >= 0:
            prefetch(arena, wi[s + ahead, W_IDS])
            prefetch(arena, wi[s + ahead, W_AUX])
        if s % every == 0:
            bounds[s // every] = n
        if wi[s, W_KEY] >= 0:
            for kind in range(2):
                base, cls = (wi[s, W_IDS], wi[s, W_IDS_CLASS]) if kind == 0 else (wi[s, W_AUX], wi[s, W_AUX_CLASS])
                for j in range(base, base + (np.int64(1) << cls)):
                    sets[n, 0], sets[n, 1] = arena[j, 0], arena[j, 1]
                    n += 1
        wi[s, W_IDS], wi[s, W_AUX], wi[s, W_OUT] = 0, 0, -1
    bounds[-1] = n
    return n


@njit(cache=True, nogil=True)
def place_sets(wi):
    """Tell every open window where its regions are when they lie in the order of the slots; return their entries."""
    n = np.int64(0)
    for s in range(len(wi)):
        if wi[s, W_KEY] >= 0:
            wi[s, W_IDS] = n
            n += np.int64(1) << wi[s, W_IDS_CLASS]
            wi[s, W_AUX] = n
            n += np.int64(1) << wi[s, W_AUX_CLASS]
    return n
