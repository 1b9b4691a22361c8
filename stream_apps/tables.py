"""Rebuilding the window engine's hash tables: dead entries dropped, places given anew."""

import numpy as np
from numba import njit

from fluvial.stream_apps.kernel import W_AUX, W_GEN, W_KEY, W_START, mix


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
def is_live(uid, wi):
    """Tell whether the window that a uid names is still open."""
    s = uid & 0xFFFFFFFF
    return wi[s, W_KEY] >= 0 and wi[s, W_GEN] == uid >> 32


@njit(cache=True, nogil=True)
def live_rows(entries, wi):
    """Return the places of the entries (uid in column 0, −1 is empty) whose window is open."""
    out = np.empty(len(entries), np.int64)
    n = 0
    for i in range(len(entries)):
        if entries[i, 0] >= 0 and is_live(entries[i, 0], wi):
            out[n] = i
            n += 1
    return out[:n].copy()


@njit(cache=True, nogil=True)
def fill_ids(entries, rows, ids):
    """Put the identities at ``rows`` of ``entries`` into the empty table ``ids``."""
    mask = len(ids) - 1
    for j in range(len(rows)):
        u, a, b = entries[rows[j], 0], entries[rows[j], 1], entries[rows[j], 2]
        g = np.int64(mix(mix(u, a), b)) & mask
        while ids[g, 0] != -1:
            g = (g + 1) & mask
        ids[g, 0], ids[g, 1], ids[g, 2] = u, a, b


@njit(cache=True, nogil=True)
def fill_aux(entries, sums, rows, wi, aux, auxf):
    """Put the sketch, register and item entries at ``rows`` into the empty table and chain them to their windows anew."""
    for s in range(len(wi)):
        wi[s, W_AUX] = -1
    mask = len(aux) - 1
    for j in range(len(rows)):
        i = rows[j]
        u, sub = entries[i, 0], entries[i, 1]
        h = np.int64(mix(u, sub)) & mask
        while aux[h, 0] != -1:
            h = (h + 1) & mask
        s = u & 0xFFFFFFFF
        aux[h, 0], aux[h, 1], aux[h, 2], aux[h, 3] = u, sub, entries[i, 2], wi[s, W_AUX]
        auxf[h] = sums[i]
        wi[s, W_AUX] = h
