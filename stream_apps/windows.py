"""The state of tumbling and hopping windows of one pipeline and partition, and its growth.

`AlignedWindows.process` is a pure function of the records it was given so far: how they were cut into batches changes
nothing. Its arrays are its checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.records import F64, I64
from fluvial.schemas.declarations import Hopping, Pipeline, Tumbling
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.emission import emit
from fluvial.stream_apps.growth import CountedWindows, enlarged, grown, new_keys, no_heads, power_of_two
from fluvial.stream_apps.kernel import fold
from fluvial.stream_apps.snapshots import Blocks, Room, State
from fluvial.stream_apps.tables import place_sets, rebuild_windows, slots_used, take_sets

OUT_ROWS = 4096
SLOTS_PER_BLOCK = 512
NUMERIC = frozenset({"sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99"})
QUANTILES = frozenset({"p50", "p95", "p99"})


@dataclass(frozen=True, slots=True)
class Inputs:
    """n records of one partition as the engine takes them, in offset order (see `kernel.fold` for each column)."""

    kind: NDArray[np.uint8]
    offset: I64
    time: I64
    key: I64
    record_key: I64
    identity_a: I64
    identity_b: I64
    value: F64
    distinct: NDArray[np.uint64]
    item: I64
    upstream: I64

    def __len__(self) -> int:
        return len(self.offset)

    def rest(self, n: int) -> "Inputs":
        """Return the records from number n on."""
        return Inputs(*(getattr(self, f)[n:] for f in self.__slots__))


@dataclass(frozen=True, slots=True)
class Rows:
    """Emitted rows: ``ints`` int64[n, N_OI] and ``doubles`` float64[n, N_OF] by the kernel's O_ and V_ columns.

    ``top_item`` int64[n, k] holds item ids (−1: none), ``top_sum`` their sums.
    """

    ints: I64
    doubles: F64
    top_item: I64
    top_sum: F64

    def __len__(self) -> int:
        return len(self.ints)


@dataclass(frozen=True, slots=True)
class Late:
    """Late events: int64[n] of the record's number in the inputs, how late it was, and C when it came."""

    record: I64
    late_by_ms: I64
    closed_through: I64


def concat_rows(parts: list[Rows], top_k: int) -> Rows:
    """Return the rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Rows(
            np.empty((0, k.N_OI), np.int64), np.empty((0, k.N_OF)), np.empty((0, top_k), np.int64), np.empty((0, top_k))
        )
    return Rows(*(np.concatenate([getattr(p, f) for p in parts]) for f in Rows.__slots__))


class AlignedWindows(CountedWindows):
    """Open windows, keys and identities of one pipeline and partition.

    ``upstream_partitions`` > 0 makes it a stage behind a rekeyed topic: its time is what all of them have announced.
    """

    def __init__(self, pipeline: Pipeline, *, upstream_partitions: int = 0) -> None:
        w = pipeline.window
        if not isinstance(w, Tumbling | Hopping):
            raise TypeError(f"{w} is not an aligned window")
        aggregates = set(pipeline.aggregates)
        mode = k.BY_KEY if pipeline.time == "key" else k.REKEYED if upstream_partitions else k.BY_PARTITION
        self.cfg = np.zeros(k.N_CFG, np.int64)
        self.cfg[k.SIZE], self.cfg[k.HOP] = w.size_ms, w.hop_ms if isinstance(w, Hopping) else w.size_ms
        self.cfg[k.LATENESS], self.cfg[k.IDLE] = pipeline.lateness_ms, pipeline.idle_timeout_ms
        self.cfg[k.EARLY], self.cfg[k.MODE] = pipeline.early_ms, mode
        self.cfg[k.HAS_VALUE] = pipeline.value is not None
        self.cfg[k.QUANTILES] = bool(aggregates & QUANTILES)
        self.cfg[k.DISTINCT], self.cfg[k.TOP] = "distinct" in aggregates, "top" in aggregates
        self.cfg[k.IDENTITY] = bool(pipeline.identity)
        self.cover = w.size_ms // int(self.cfg[k.HOP])
        self.top_k = pipeline.top_k if "top" in aggregates else 0
        self.st = np.zeros(k.N_ST, np.int64)
        self.st[[k.P, k.CLOSED]] = k.NEG
        self.st[[k.OLDEST, k.NEWEST]] = -1
        self.ups = np.full(max(upstream_partitions, 1), k.NEG, np.int64)
        self.ki = new_keys(256)
        self.rhead = np.full(256, -1, np.int64)
        windows = max(256, 4 * self.cover)
        self.wi, self.wf = _new_windows(windows)
        self.free = np.arange(windows, dtype=np.int64)[::-1].copy()
        self.st[k.N_FREE] = windows
        self.table = np.full(4 * windows, -1, np.int64)
        self.heads = _no_free_regions()
        self.arena = np.zeros((1 << 12, 2), np.int64)
        self.ends = np.zeros((64 + self.cover, 2), np.int64)
        n = OUT_ROWS + 2 * self.cover
        self._out = (
            np.zeros((n, k.N_OI), np.int64),
            np.zeros((n, k.N_OF)),
            np.zeros((n, self.top_k), np.int64),
            np.zeros((n, self.top_k)),
        )

    def process(
        self, inputs: Inputs, *, keys: int, record_keys: int, items: tuple[NDArray[np.uint8], I64]
    ) -> tuple[Rows, Late]:
        """Fold records in offset order; return the rows that they made and the late ones among them.

        ``keys`` and ``record_keys`` are how many ids exist so far; ``items`` the names of the items of the top aggregate,
        as one byte arena and n + 1 positions in it.
        """
        self.ki = grown(self.ki, keys, new_keys)
        self.rhead = grown(self.rhead, record_keys, no_heads)
        late_out = np.empty((len(inputs), 3), np.int64)
        rows: list[Rows] = []
        lates: list[I64] = []
        at = 0
        rest = inputs
        while True:
            done = fold(
                *(getattr(rest, f) for f in Inputs.__slots__), late_out, self.cfg, self.st, self.ups, self.ki, self.rhead,
                self.wi, self.wf, self.free, self.table, self.heads, self.arena, self.arena.view(np.float64), self.ends,
                *self._out, *items,
            )  # fmt: skip
            n, m = int(self.st[k.N_OUT]), int(self.st[k.N_LATE_OUT])
            if n:
                ints, doubles, top_item, top_sum = self._out
                rows.append(Rows(ints[:n].copy(), doubles[:n].copy(), top_item[:n].copy(), top_sum[:n].copy()))
            if m:
                lates.append(late_out[:m] + np.array([at, 0, 0]))
            if done == len(rest):
                break
            self._make_room(int(self.st[k.NEED]))
            at += done
            rest = rest.rest(done)
        late = np.concatenate(lates) if lates else np.empty((0, 3), np.int64)
        return concat_rows(rows, self.top_k), Late(late[:, 0], late[:, 1], late[:, 2])

    def open_rows(self, offset: int, items: tuple[NDArray[np.uint8], I64]) -> Rows:
        """Return one early row for every open window, as of ``offset``, the last one handled."""
        slots = np.flatnonzero((self.wi[:, k.W_KEY] >= 0) & (self.wi[:, k.W_COUNT] > 0))
        n = len(slots)
        out = (
            np.zeros((n, k.N_OI), np.int64),
            np.zeros((n, k.N_OF)),
            np.zeros((n, self.top_k), np.int64),
            np.zeros((n, self.top_k)),
        )
        for o, s in enumerate(slots.tolist()):
            emit(s, o, 0, offset, self.cfg, self.wi, self.wf, self.arena, self.arena.view(np.float64), *out, *items)
        return Rows(*out)

    def state(self, room: Room, *, keys: int, record_keys: int) -> State:
        """Return copies of everything that decides what comes next; where sets lie in the arena does not."""
        used = slots_used(self.wi[:, k.W_KEY])
        wi, st = room.copy(self.wi[:used]), self.st.copy()
        st[list(k.SCRATCH)] = 0
        st[k.ARENA_USED] -= int((self.heads[:, 1] << np.arange(k.N_CLASSES)).sum())
        sets = room.empty((int(st[k.ARENA_USED]), 2), np.int64)
        bounds = np.zeros(-(-used // SLOTS_PER_BLOCK) + 1, np.int64)
        take_sets(wi, self.arena, SLOTS_PER_BLOCK, sets, bounds)
        return {
            "st": st, "ups": self.ups.copy(), "ki": room.copy(self.ki[:keys]), "rhead": room.copy(self.rhead[:record_keys]),
            "wi": wi, "wf": room.copy(self.wf[:used]), "free": room.copy(self.free[: int(st[k.N_FREE])]),
            "sets": Blocks(sets, bounds, shuffled=False), "ends": self.ends[: int(st[k.N_ENDS])].copy(),
        }  # fmt: skip

    def state_bytes(self) -> int:
        """Return about how large `state` would be; it may be asked while records are folded."""
        wi, sets = self.wi, int(self.st[k.ARENA_USED] - (self.heads[:, 1] << np.arange(k.N_CLASSES)).sum())
        windows = slots_used(wi[:, k.W_KEY]) * 8 * (k.N_WI + k.N_WF)
        return int(windows + 16 * sets + self.ki.nbytes + self.rhead.nbytes + self.free.nbytes)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up the arrays of a state that `state` returned."""
        self.st[:] = state["st"]
        self.ups = state["ups"].copy()
        self.ki = enlarged(state["ki"], power_of_two(max(256, len(state["ki"]))), new_keys)
        self.rhead = enlarged(state["rhead"], power_of_two(max(256, len(state["rhead"]))), no_heads)
        used, free = len(state["wi"]), state["free"]
        windows = len(free) + int((state["wi"][:, k.W_KEY] >= 0).sum())
        self.wi, self.wf = _new_windows(windows)
        self.wi[:used], self.wf[:used] = state["wi"], state["wf"]
        self.free = enlarged(free, windows, no_heads)
        self.table = np.full(4 * windows, -1, np.int64)
        rebuild_windows(self.wi, self.table)
        self.heads = _no_free_regions()
        sets = place_sets(self.wi)
        self.arena = np.empty((power_of_two(max(1 << 12, 2 * sets)), 2), np.int64)
        self.arena[:sets] = state["sets"]
        self.ends = enlarged(
            state["ends"], 64 + self.cover + 2 * len(state["ends"]), lambda n: np.zeros((n, 2), np.int64)
        )

    def _make_room(self, need: int) -> None:
        if need == k.ROOM_WINDOWS:
            n = len(self.free)
            more_i, more_f = _new_windows(n)
            self.wi, self.wf = np.concatenate([self.wi, more_i]), np.concatenate([self.wf, more_f])
            free = int(self.st[k.N_FREE])
            self.free = np.concatenate([np.arange(n, 2 * n)[::-1], self.free[:free], np.zeros(n - free, np.int64)])
            self.st[k.N_FREE] = n + free
            self.table = np.full(8 * n, -1, np.int64)
            rebuild_windows(self.wi, self.table)
        elif need == k.ROOM_ARENA:
            # What no region has been taken from yet is never read: left untouched, it takes no memory.
            used, before = int(self.st[k.ARENA_USED]), self.arena
            self.arena = np.empty((2 * len(before), 2), np.int64)
            self.arena[:used] = before[:used]
        elif need == k.ROOM_ENDS:
            self.ends = np.concatenate([self.ends, np.zeros_like(self.ends)])


def _no_free_regions() -> I64:
    heads = np.zeros((k.N_CLASSES, 2), np.int64)
    heads[:, 0] = -1
    return heads


def _new_windows(n: int) -> tuple[I64, F64]:
    wi = np.zeros((n, k.N_WI), np.int64)
    wi[:, k.W_KEY] = -1
    return wi, np.zeros((n, k.N_WF))
