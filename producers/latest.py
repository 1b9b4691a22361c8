"""The greatest event time of each record key, over millions of events."""

import numpy as np
import pyarrow as pa

from fluvial.records import I64, Spans
from fluvial.schemas.columns import spans_from_strings, spans_to_arrow

_COMPACT_ROWS = 1 << 18


class LatestTimes:
    """Collects (key, event time); memory grows with the number of different keys."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows = 0
        self._limit = _COMPACT_ROWS

    def add(self, keys: Spans, times: I64) -> None:
        """Take note of events."""
        if not len(keys):
            return
        part = _greatest(pa.table({"key": spans_to_arrow(keys, pa.large_binary()), "time": times}))
        self._parts.append(part)
        self._rows += len(part)
        if self._rows > self._limit:
            self._compact()

    def result(self) -> tuple[Spans, I64]:
        """Return the different keys, in the order of their bytes, and each one's greatest time."""
        self._compact()
        if not self._parts:
            return spans_from_strings([]), np.zeros(0, np.int64)
        table = self._parts[0].sort_by("key").combine_chunks()
        return spans_from_strings(table["key"]), np.asarray(table["time"]).astype(np.int64)

    def _compact(self) -> None:
        if len(self._parts) > 1:
            self._parts = [_greatest(pa.concat_tables(self._parts))]
        self._rows = sum(len(p) for p in self._parts)
        self._limit = max(_COMPACT_ROWS, 2 * self._rows)


def _greatest(table: pa.Table) -> pa.Table:
    grouped = table.group_by("key", use_threads=False).aggregate([("time", "max")])
    return pa.table({"key": grouped["key"], "time": grouped["time_max"]})
