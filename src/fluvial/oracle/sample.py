"""Some keys out of all: the same ones for the same seed, found in one pass and without knowing all of them first."""

from collections.abc import Callable
from hashlib import blake2b
from heapq import heappush, heapreplace
from typing import Any

Values = tuple[Any, ...]


class Sample:
    """The ``size`` keys with the least hashes under a seed.

    The bar only ever falls, so a key that is turned away at its first event would be turned away for ever, and one that
    stays was there from its first event on. ``evicted`` is told of every key that has to go for another.
    """

    def __init__(self, size: int, seed: int, evicted: Callable[[Values], None] = lambda values: None) -> None:
        self._size = size
        self._salt = seed.to_bytes(8, "big", signed=True)
        self._heap: list[tuple[int, Values]] = []  # the greatest hash first: hashes are negated
        self._kept: set[Values] = set()
        self.evicted = evicted

    def __contains__(self, values: Values) -> bool:
        return values in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def keys(self) -> frozenset[Values]:
        """The keys of the sample so far."""
        return frozenset(self._kept)

    def admits(self, values: Values) -> bool:
        """Return whether a key that was seen belongs to the sample, and take it in if so."""
        if values in self._kept:
            return True
        rank = -self._hash(values)
        if len(self._heap) < self._size:
            heappush(self._heap, (rank, values))
        elif not self._size or rank <= self._heap[0][0]:
            return False
        else:
            _, gone = heapreplace(self._heap, (rank, values))
            self._kept.remove(gone)
            self.evicted(gone)
        self._kept.add(values)
        return True

    def would_hold(self, values: Values) -> bool:
        """Return whether a key, seen or not, lies below the bar: it would be in the sample if the log had it."""
        if values in self._kept or not self._size:
            return bool(self._size)
        return len(self._heap) < self._size or -self._hash(values) > self._heap[0][0]

    def _hash(self, values: Values) -> int:
        return int.from_bytes(blake2b(repr(values).encode(), digest_size=8, key=self._salt).digest(), "big")
