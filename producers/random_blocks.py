"""Random numbers by address: what is drawn depends on the seed and on where it is wanted, not on what came before."""

import numpy as np
from numpy.typing import NDArray

from fluvial.records import I64, U8

U64 = NDArray[np.uint64]

# One stream per purpose, so that one more draw in one place changes nothing in another.
SENSOR_TRAITS, SENSOR_BLOCKS, POST_BLOCKS, ARRIVAL_BLOCKS, HASHTAG_TABLE, TEXT_TABLE = range(6)
BLOCK_EVENTS = 16_384


def generator(seed: int, stream: int, block: int = 0) -> np.random.Generator:
    """Return the generator of one block of one stream: Philox, a counter-based generator, keyed by seed and stream."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, block], np.uint64)))


def scrambled(seed: int, *parts: I64) -> U64:
    """Return a uint64 for each row of integers, as if drawn at random for it.

    Source: the finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    """
    mixed = np.full(np.shape(parts[0]), (seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF, np.uint64)
    for part in parts:
        mixed = (mixed ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def numbered(prefix: str, numbers: I64, width: int) -> U8:
    """Return uint8[n, len(prefix) + width]: the prefix and each number in decimal, with leading zeros."""
    head = np.frombuffer(prefix.encode(), np.uint8)
    out = np.empty((len(numbers), len(head) + width), np.uint8)
    out[:, : len(head)] = head
    rest = numbers.copy()
    for place in range(len(head) + width - 1, len(head) - 1, -1):
        rest, digit = np.divmod(rest, 10)
        out[:, place] = digit + 48
    return out
