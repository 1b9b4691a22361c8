"""DDSketch buckets, HyperLogLog and the hash under them, compiled (docs/reference/semantics.md)."""

import math

import numpy as np

from fluvial.compiling import njit

LOG_GAMMA = math.log(1.01 / 0.99)
GAMMA_PLUS_1 = 1.01 / 0.99 + 1.0
TINY = 1e-300
HLL_P = 12
HLL_M = 1 << HLL_P
ZERO_BUCKET = 1 << 40
SIGN_SPAN = 1 << 30


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
