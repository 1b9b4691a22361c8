"""DDSketch, HyperLogLog and XXH64 as docs/reference/semantics.md states them, by the book and without any speed."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

GAMMA = 1.01 / 0.99
SMALLEST = 1e-300

PRECISION = 12
REGISTERS = 1 << PRECISION

_MASK = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def quantile(values: Sequence[float], q: float) -> float:
    """Return the DDSketch quantile (1 % relative error) of at least one finite value."""
    negative: Counter[int] = Counter()
    positive: Counter[int] = Counter()
    zeros = 0
    for v in values:
        if abs(v) < SMALLEST:
            zeros += 1
        else:
            index = math.ceil(math.log(abs(v)) / math.log(GAMMA))
            (positive if v > 0 else negative)[index] += 1
    buckets = [(-_bucket_value(i), negative[i]) for i in sorted(negative, reverse=True)]
    buckets += [(0.0, zeros)]
    buckets += [(_bucket_value(i), positive[i]) for i in sorted(positive)]
    rank = q * (len(values) - 1)
    cumulative = 0
    for value, count in buckets:
        cumulative += count
        if cumulative > rank:
            return value
    raise AssertionError("a rank lies below the count")


def _bucket_value(index: int) -> float:
    try:
        power = math.exp(index * math.log(GAMMA))
    except OverflowError:
        power = math.inf
    return 2 * power / (GAMMA + 1)


def distinct(items: Iterable[bytes]) -> int:
    """Return the HyperLogLog estimate of how many different byte strings there are."""
    registers: dict[int, int] = {}  # those that are not 0
    for item in items:
        h = xxh64(item)
        register = h >> (64 - PRECISION)
        rest = h & ((1 << (64 - PRECISION)) - 1)
        rank = (64 - PRECISION) - rest.bit_length() + 1
        registers[register] = max(registers.get(register, 0), rank)
    empty = REGISTERS - len(registers)
    # Each empty register adds 2⁰. All terms are powers of two, so that their order does not matter.
    total = float(empty)
    for r in registers.values():
        total = total + 2.0**-r
    alpha = 0.7213 / (1 + 1.079 / REGISTERS)
    estimate = alpha * REGISTERS * REGISTERS / total
    if estimate < 2.5 * REGISTERS and empty:
        estimate = REGISTERS * math.log(REGISTERS / empty)
    return round(estimate)


def xxh64(data: bytes) -> int:
    """Return the XXH64 hash, seed 0 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""
    n = len(data)
    i = 0
    if n >= 32:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        while i + 32 <= n:
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[i : i + 8], "little"))
                i += 8
        h = sum(_left(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            h = ((h ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        h = _P5
    h = (h + n) & _MASK
    while i + 8 <= n:
        h ^= _round(0, int.from_bytes(data[i : i + 8], "little"))
        h = (_left(h, 27) * _P1 + _P4) & _MASK
        i += 8
    if i + 4 <= n:
        h ^= int.from_bytes(data[i : i + 4], "little") * _P1 & _MASK
        h = (_left(h, 23) * _P2 + _P3) & _MASK
        i += 4
    while i < n:
        h ^= data[i] * _P5 & _MASK
        h = _left(h, 11) * _P1 & _MASK
        i += 1
    h = (h ^ (h >> 33)) * _P2 & _MASK
    h = (h ^ (h >> 29)) * _P3 & _MASK
    return h ^ (h >> 32)


def _round(lane: int, word: int) -> int:
    return _left((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def _left(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & _MASK
