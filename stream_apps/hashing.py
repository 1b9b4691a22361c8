"""XXH64 over spans (github.com/Cyan4973/xxHash, doc/xxhash_spec.md) and a quicker hash of large blocks, compiled."""

import numpy as np
from numpy.typing import NDArray

from fluvial.compiling import njit
from fluvial.records import Spans

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


def hash_spans(spans: Spans, seed: int = 0) -> NDArray[np.uint64]:
    """Return XXH64 of each string, uint64[n]; null hashes as the empty string."""
    out = np.empty(len(spans), np.uint64)
    _hash_all(spans.buffer, spans.start, spans.length, np.uint64(seed), out)
    return out


@njit(cache=True, nogil=True)
def _left(x, bits):
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@njit(cache=True, nogil=True)
def _round(lane, word):
    return _left(lane + word * _P2, 31) * _P1


@njit(cache=True, nogil=True)
def _word(b, i):
    w = np.uint64(0)
    for j in range(8):
        w |= np.uint64(b[i + j]) << np.uint64(8 * j)
    return w


@njit(cache=True, nogil=True)
def xxh64(b, a, n, seed):
    """Return XXH64 of ``b[a : a + n]``."""
    i, end = a, a + n
    if n >= 32:
        v1, v2, v3, v4 = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while i + 32 <= end:
            v1, v2 = _round(v1, _word(b, i)), _round(v2, _word(b, i + 8))
            v3, v4 = _round(v3, _word(b, i + 16)), _round(v4, _word(b, i + 24))
            i += 32
        h = _left(v1, 1) + _left(v2, 7) + _left(v3, 12) + _left(v4, 18)
        zero = np.uint64(0)
        h = (h ^ _round(zero, v1)) * _P1 + _P4
        h = (h ^ _round(zero, v2)) * _P1 + _P4
        h = (h ^ _round(zero, v3)) * _P1 + _P4
        h = (h ^ _round(zero, v4)) * _P1 + _P4
    else:
        h = seed + _P5
    h += np.uint64(n)
    while i + 8 <= end:
        h = _left(h ^ _round(np.uint64(0), _word(b, i)), 27) * _P1 + _P4
        i += 8
    if i + 4 <= end:
        w = (
            np.uint64(b[i])
            | np.uint64(b[i + 1]) << np.uint64(8)
            | np.uint64(b[i + 2]) << np.uint64(16)
            | np.uint64(b[i + 3]) << np.uint64(24)
        )
        h = _left(h ^ (w * _P1), 23) * _P2 + _P3
        i += 4
    while i < end:
        h = _left(h ^ (np.uint64(b[i]) * _P5), 11) * _P1
        i += 1
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _hash_all(b, start, length, seed, out):
    for i in range(len(start)):
        out[i] = xxh64(b, start[i], max(length[i], 0), seed)


def hash_blocks(flat: NDArray[np.uint8], bounds: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return a hash of each ``flat[bounds[i]:bounds[i + 1]]``, uint64[n], some 7 GB a second.

    The (secret) seed multiplies every word, so that no difference in one word cancels that in another for every seed.
    """
    out = np.empty(len(bounds) - 1, np.uint64)
    _hash_blocks(flat, bounds, np.uint64(seed | 1), out)
    return out


@njit(cache=True, nogil=True)
def _hash_blocks(flat, bounds, seed, out):
    for i in range(len(out)):
        begin, end = bounds[i], bounds[i + 1]
        words = flat[begin : begin + (end - begin) // 32 * 32].view(np.uint64)
        a, b, c, d = np.uint64(end - begin), np.uint64(1), np.uint64(2), np.uint64(3)
        for j in range(0, len(words), 4):
            a, b = _mixed(a ^ words[j], seed), _mixed(b ^ words[j + 1], seed)
            c, d = _mixed(c ^ words[j + 2], seed), _mixed(d ^ words[j + 3], seed)
        for j in range(begin + 8 * len(words), end):
            a = _mixed(a ^ np.uint64(flat[j]), seed)
        out[i] = _mixed(_mixed(_mixed(a, seed) ^ b, seed) ^ c, seed) ^ d


@njit(cache=True, nogil=True)
def _mixed(x, seed):
    x *= np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= seed
    return x ^ (x >> np.uint64(29))
