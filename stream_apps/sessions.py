"""The state of the sessions of one pipeline and partition, and its growth (see ``fluvial.stream_apps.windows``)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.records import I64
from fluvial.schemas.declarations import Pipeline, Session
from fluvial.stream_apps import layout as k
from fluvial.stream_apps import session_kernel as sk
from fluvial.stream_apps.growth import CountedWindows, enlarged, grown, new_keys, no_heads, power_of_two
from fluvial.stream_apps.snapshots import Room, State
from fluvial.stream_apps.tables import slots_used
from fluvial.stream_apps.windows import (
    OUT_ROWS,
    QUANTILES,
    Inputs,
    Late,
    Rows,
    concat_rows,
)


class SessionWindows(CountedWindows):
    """Open sessions, their events, keys and identities of one pipeline and partition."""

    def __init__(self, pipeline: Pipeline, *, upstream_partitions: int = 0) -> None:
        if not isinstance(pipeline.window, Session):
            raise TypeError(f"{pipeline.window} is not a session window")
        aggregates = set(pipeline.aggregates)
        self.cfg = np.zeros(k.N_CFG, np.int64)
        self.cfg[k.SIZE], self.cfg[k.LATENESS], self.cfg[k.IDLE] = (
            pipeline.window.gap_ms,
            pipeline.lateness_ms,
            pipeline.idle_timeout_ms,
        )
        self.cfg[k.MODE] = k.BY_KEY if pipeline.time == "key" else k.REKEYED if upstream_partitions else k.BY_PARTITION
        self.cfg[k.HAS_VALUE], self.cfg[k.QUANTILES] = pipeline.value is not None, bool(aggregates & QUANTILES)
        self.cfg[k.DISTINCT] = "distinct" in aggregates
        self.cfg[k.IDENTITY] = bool(pipeline.identity)
        self.st = np.zeros(sk.N_ST, np.int64)
        self.st[[k.P, k.CLOSED]] = k.NEG
        self.st[[k.OLDEST, k.NEWEST]] = -1
        self.ups = np.full(max(upstream_partitions, 1), k.NEG, np.int64)
        self.ki = new_keys(256)
        self.rhead = np.full(256, -1, np.int64)
        self.si, self.ei, self.ef = _sessions(256), _events(1024), np.zeros(1024)
        self.free, self.free_events = np.arange(256, dtype=np.int64), np.arange(1024, dtype=np.int64)
        self.st[k.N_FREE], self.st[sk.N_FREE_EVENTS] = 256, 1024
        self.ids = np.full((1 << 12, 2), -1, np.int64)
        self.heap = np.zeros((1024, 3), np.int64)
        self._out = (np.zeros((OUT_ROWS, k.N_OI), np.int64), np.zeros((OUT_ROWS, k.N_OF)))

    def process(
        self, inputs: Inputs, *, keys: int, record_keys: int, items: tuple[NDArray[np.uint8], I64]
    ) -> tuple[Rows, Late]:
        """Fold records in offset order; return the rows that they made and the late ones among them."""
        self.ki = grown(self.ki, keys, new_keys)
        self.rhead = grown(self.rhead, record_keys, no_heads)
        late_out = np.empty((len(inputs), 3), np.int64)
        rows: list[Rows] = []
        lates: list[I64] = []
        at, rest = 0, inputs
        while True:
            done = sk.fold(
                *(getattr(rest, f) for f in Inputs.__slots__), late_out, self.cfg, self.st, self.ups, self.ki, self.rhead,
                self.si, self.ei, self.ef, self.free, self.free_events, self.ids, self.heap, *self._out,
            )  # fmt: skip
            n, m = int(self.st[k.N_OUT]), int(self.st[k.N_LATE_OUT])
            if n:
                rows.append(_rows(self._out[0][:n].copy(), self._out[1][:n].copy()))
            if m:
                lates.append(late_out[:m] + np.array([at, 0, 0]))
            if done == len(rest):
                break
            self._make_room(int(self.st[k.NEED]))
            at += done
            rest = rest.rest(done)
        late = np.concatenate(lates) if lates else np.empty((0, 3), np.int64)
        return concat_rows(rows, 0), Late(late[:, 0], late[:, 1], late[:, 2])

    def open_rows(self, offset: int, items: tuple[NDArray[np.uint8], I64]) -> Rows:
        """Return one early row for every open session, as of ``offset``, the last one handled."""
        slots = np.flatnonzero(self.si[:, sk.S_KEY] >= 0)
        out = (np.zeros((len(slots), k.N_OI), np.int64), np.zeros((len(slots), k.N_OF)))
        for o, s in enumerate(slots.tolist()):
            sk.emit(s, o, 0, offset, self.cfg, self.si, self.ei, self.ef, *out)
        return _rows(*out)

    def state(self, room: Room, *, keys: int, record_keys: int) -> State:
        """Return copies of everything that decides what comes next."""
        sessions, events, st = slots_used(self.si[:, sk.S_KEY]), slots_used(self.ei[:, sk.E_OFFSET]), self.st.copy()
        st[[*k.SCRATCH, k.N_IDS, sk.N_HEAP]] = 0
        return {
            "st": st, "ups": self.ups.copy(), "ki": room.copy(self.ki[:keys]), "rhead": room.copy(self.rhead[:record_keys]),
            "si": room.copy(self.si[:sessions]), "ei": room.copy(self.ei[:events]), "ef": room.copy(self.ef[:events]),
            "free": room.copy(self.free[: int(st[k.N_FREE])]),
            "free_events": room.copy(self.free_events[: int(st[sk.N_FREE_EVENTS])]),
        }  # fmt: skip

    def state_bytes(self) -> int:
        """Return about how large `state` would be; it may be asked while records are folded."""
        parts = (self.ki, self.rhead, self.si, self.ei, self.ef, self.free, self.free_events)
        return sum(int(a.nbytes) for a in parts)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up the arrays of a state that `state` returned."""
        self.st[:] = state["st"]
        self.ups = state["ups"].copy()
        self.ki = enlarged(state["ki"], power_of_two(max(256, len(state["ki"]))), new_keys)
        self.rhead = enlarged(state["rhead"], power_of_two(max(256, len(state["rhead"]))), no_heads)
        sessions = len(state["free"]) + int((state["si"][:, sk.S_KEY] >= 0).sum())
        events = len(state["free_events"]) + int((state["ei"][:, sk.E_OFFSET] >= 0).sum())
        self.si, self.ei = enlarged(state["si"], sessions, _sessions), enlarged(state["ei"], events, _events)
        self.ef = enlarged(state["ef"], events, np.zeros)
        self.free = enlarged(state["free"], sessions, no_heads)
        self.free_events = enlarged(state["free_events"], events, no_heads)
        self._new_ids()
        self._new_heap()

    def _make_room(self, need: int) -> None:
        if need == k.ROOM_WINDOWS:
            self.si = np.concatenate([self.si, _sessions(len(self.si))])
            self.free, self.st[k.N_FREE] = _free_places(self.si[:, sk.S_KEY] < 0)
        elif need == sk.ROOM_EVENTS:
            n = len(self.ei)
            self.ei, self.ef = np.concatenate([self.ei, _events(n)]), np.concatenate([self.ef, np.zeros(n)])
            self.free_events, self.st[sk.N_FREE_EVENTS] = _free_places(self.ei[:, sk.E_OFFSET] < 0)
        elif need == k.ROOM_IDS:
            self._new_ids()
        elif need == sk.ROOM_HEAP:
            self._new_heap()

    def _new_ids(self) -> None:
        kept = len(self.ei) - int(self.st[sk.N_FREE_EVENTS])
        self.ids = np.full((power_of_two(max(1 << 12, 4 * (kept + 1))), 2), -1, np.int64)
        self.st[k.N_IDS] = sk.fill_ids(self.si, self.ei, self.ids)

    def _new_heap(self) -> None:
        self.heap = np.zeros((max(1024, 4 * self.open_windows), 3), np.int64)
        sk.fill_heap(self.si, self.cfg[k.SIZE], self.heap, self.st)


def _rows(ints: I64, doubles: Any) -> Rows:
    n = len(ints)
    return Rows(ints, doubles, np.empty((n, 0), np.int64), np.empty((n, 0)))


def _free_places(is_free: NDArray[np.bool_]) -> tuple[I64, int]:
    free = np.zeros(len(is_free), np.int64)
    places = np.flatnonzero(is_free)
    free[: len(places)] = places
    return free, len(places)


def _sessions(n: int) -> I64:
    si = np.zeros((n, sk.N_SI), np.int64)
    si[:, sk.S_KEY] = -1
    return si


def _events(n: int) -> I64:
    ei = np.zeros((n, sk.N_EI), np.int64)
    ei[:, sk.E_OFFSET] = -1
    return ei
