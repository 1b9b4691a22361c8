"""What windows and sessions have in common outside of their loops: what they tell of themselves, and how they grow."""

from typing import Any

import numpy as np

from fluvial.records import I64
from fluvial.stream_apps import layout as k


class CountedWindows:
    """What a state of windows tells of itself: ``st`` holds its scalars, ``free`` the places that may be free."""

    st: I64
    free: I64

    @property
    def open_windows(self) -> int:
        """How many windows are open."""
        return len(self.free) - int(self.st[k.N_FREE])

    @property
    def partition_time(self) -> int:
        """P, epoch ms (`layout.NEG` before the first record)."""
        return int(self.st[k.P])

    @property
    def closed_through(self) -> int:
        """C of every key when the partition's time closes windows."""
        return int(self.st[k.CLOSED])

    @property
    def counts(self) -> dict[str, int]:
        """The ledger's part of this pipeline."""
        s = self.st
        return {
            "ticks": int(s[k.N_TICKS]),
            "aggregated": int(s[k.N_AGG]),
            "duplicates": int(s[k.N_DUP]),
            "late": int(s[k.N_LATE]),
        }


def power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def new_keys(n: int) -> I64:
    ki = np.full((n, k.N_KI), -1, np.int64)
    ki[:, [k.K_TIME, k.K_HEARD, k.K_CLOSED]] = k.NEG
    ki[:, k.K_SIBLING] = k.UNKNOWN
    return ki


def no_heads(n: int) -> I64:
    return np.full(n, -1, np.int64)


def grown(a: Any, n: int, new: Any) -> Any:
    """Return ``a`` if it has n rows, else a longer copy."""
    return a if len(a) >= n else enlarged(a, power_of_two(n), new)


def enlarged(a: Any, n: int, new: Any) -> Any:
    """Return a copy of ``a`` with n rows in all, those that it lacks as ``new`` makes them."""
    out = new(n)
    out[: len(a)] = a
    return out
