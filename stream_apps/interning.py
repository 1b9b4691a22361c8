"""Byte strings (of one or more fields) to dense ids, in order of first appearance, without an object per event."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.compiling import njit
from fluvial.records import I64, U8, Spans

_EMPTY_ID = -1


@njit(cache=True, nogil=True)
def _hash(b, start, length, i):
    h = np.uint64(0x9E3779B97F4A7C15)
    for f in range(len(start)):
        a, n = start[f, i], length[f, i]
        j = 0
        while j + 8 <= n:
            w = np.uint64(0)
            for x in range(8):
                w |= np.uint64(b[a + j + x]) << np.uint64(8 * x)
            h = (h ^ w) * np.uint64(0xD6E8FEB86659FD93)
            h ^= h >> np.uint64(32)
            j += 8
        w = np.uint64(n) << np.uint64(56)
        for x in range(n - j):
            w |= np.uint64(b[a + j + x]) << np.uint64(8 * x)
        h = (h ^ w) * np.uint64(0xD6E8FEB86659FD93)
        h ^= h >> np.uint64(32)
    return h


@njit(cache=True, nogil=True)
def _same(b, start, length, i, arena, at):
    for f in range(len(start)):
        n = length[f, i]
        if at[f + 1] - at[f] != n:
            return False
        a, c = start[f, i], at[f]
        for j in range(n):
            if b[a + j] != arena[c + j]:
                return False
    return True


@njit(cache=True, nogil=True)
def _intern(b, start, length, first, out, table, arena, at, n):
    """Give ids to rows from ``first`` on; return (rows done, ids now). Stops when table, arena or ``at`` is full.

    A table entry is (hash, id), so that a probe touches one cache line before the bytes are compared.
    """
    fields, mask = len(start), len(table) - 1
    for i in range(first, start.shape[1]):
        if length[0, i] < 0:
            out[i] = -1
            continue
        h = _hash(b, start, length, i)
        p = np.int64(h) & mask
        found = np.int64(-1)
        while table[p, 1] != -1:
            x = table[p, 1]
            if table[p, 0] == np.int64(h) and _same(
                b, start, length, i, arena, at[x * fields : x * fields + fields + 1]
            ):
                found = x
                break
            p = (p + 1) & mask
        if found < 0:
            total = np.int64(0)
            for f in range(fields):
                total += length[f, i]
            end = at[n * fields]
            if (n + 1) * 2 > len(table) or (n + 1) * fields + 1 > len(at) or end + total > len(arena):
                return i, n
            for f in range(fields):
                for j in range(length[f, i]):
                    arena[end + j] = b[start[f, i] + j]
                end += length[f, i]
                at[n * fields + f + 1] = end
            table[p, 0], table[p, 1], found = np.int64(h), n, n
            n += 1
        out[i] = found
    return start.shape[1], n


@njit(cache=True, nogil=True)
def _refill(arena, at, fields, n, table):
    mask = len(table) - 1
    start, length = np.empty((fields, 1), np.int64), np.empty((fields, 1), np.int64)
    for x in range(n):
        for f in range(fields):
            start[f, 0] = at[x * fields + f]
            length[f, 0] = at[x * fields + f + 1] - start[f, 0]
        h = _hash(arena, start, length, 0)
        p = np.int64(h) & mask
        while table[p, 1] != -1:
            p = (p + 1) & mask
        table[p, 0], table[p, 1] = np.int64(h), x


class Interner:
    """Dense ids 0, 1, 2 … for tuples of ``fields`` byte strings. Its arrays are its checkpoint."""

    def __init__(self, fields: int = 1) -> None:
        self.fields = fields
        self.count = 0
        self._table = np.full((1024, 2), _EMPTY_ID, np.int64)
        self._arena = np.zeros(1 << 13, np.uint8)
        self._at = np.zeros(256 * fields + 1, np.int64)

    def ids(self, columns: Sequence[Spans]) -> I64:
        """Return the id of each row, int64[n]; −1 where the first field is null."""
        columns = one_buffer(columns)
        buffer = columns[0].buffer
        start = np.stack([c.start for c in columns])
        length = np.stack([c.length for c in columns])
        out = np.empty(start.shape[1], np.int64)
        done = 0
        while True:
            done, self.count = _intern(buffer, start, length, done, out, self._table, self._arena, self._at, self.count)
            if done == len(out):
                return out
            needed = int(np.maximum(length[:, done], 0).sum())
            self._grow(needed)

    def arena(self) -> tuple[U8, I64]:
        """Return all byte strings end to end and count · fields + 1 positions in them (views: do not write)."""
        return self._arena, self._at

    def column(self, field: int, ids: I64) -> Spans:
        """Return field number ``field`` of the given ids as spans of the arena."""
        a = self._at[ids * self.fields + field]
        return Spans(self._arena, a, self._at[ids * self.fields + field + 1] - a)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what `restore` needs: views, which stay as they are, since what has an id is never written again."""
        at = self._at[: self.count * self.fields + 1]
        return {"arena": self._arena[: at[-1]], "at": at}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a state that `state` returned."""
        # Both are full: whatever is to be added goes into larger ones.
        self._arena, self._at = state["arena"], state["at"]
        self.count = (len(self._at) - 1) // self.fields
        self._table = np.empty((0, 2), np.int64)
        self._grow(1 << 12)

    def _grow(self, needed: int) -> None:
        """Double what is nearly full. The arena is never written in place where ids already point: views stay valid."""
        n = self.count
        if (n + 1) * self.fields + 1 > len(self._at):
            self._at = np.concatenate([self._at, np.zeros(max(256, n) * self.fields, np.int64)])
        used = int(self._at[n * self.fields])
        if used + needed > len(self._arena):
            self._arena = np.concatenate([self._arena[:used], np.zeros(max(needed, used, 1 << 13), np.uint8)])
        if (n + 1) * 2 > len(self._table) or len(self._table) == 0:
            self._table = np.full((1 << max(10, (4 * n).bit_length()), 2), _EMPTY_ID, np.int64)
            _refill(self._arena, self._at, self.fields, n, self._table)


def one_buffer(columns: Sequence[Spans]) -> Sequence[Spans]:
    """Return the same strings as spans of a single buffer (without a copy when they are that already)."""
    first = columns[0].buffer
    if all(c.buffer is first for c in columns):
        return columns
    bases = np.cumsum([0] + [len(c.buffer) for c in columns[:-1]])
    joined = np.concatenate([c.buffer for c in columns])
    return [Spans(joined, c.start + base, c.length) for c, base in zip(columns, bases.tolist(), strict=True)]


def joined(columns: Sequence[Spans], separator: bytes = b"|") -> Spans:
    """Return each row's strings as one, with a separator between them."""
    if len(columns) == 1:
        return columns[0]
    columns = one_buffer(columns)
    start = np.stack([c.start for c in columns])
    length = np.maximum(np.stack([c.length for c in columns]), 0)
    total = length.sum(axis=0) + (len(columns) - 1) * len(separator)
    ends = np.cumsum(total)
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    _join(columns[0].buffer, start, length, np.frombuffer(separator, np.uint8), out)
    return Spans(out, ends - total, total)


@njit(cache=True, nogil=True)
def _join(b, start, length, separator, out):
    p = 0
    for i in range(start.shape[1]):
        for f in range(len(start)):
            if f > 0:
                for j in range(len(separator)):
                    out[p] = separator[j]
                    p += 1
            for j in range(length[f, i]):
                out[p] = b[start[f, i] + j]
                p += 1
