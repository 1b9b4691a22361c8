"""Lines of a file that cannot become events: collected with their reasons, kept in a file, counted."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from fluvial.records import I64, Mask


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line (from 1; a row number in Parquet), why it was rejected, and the line itself."""

    line: int
    reason: str
    raw: str


class Faults:
    """Which of n rows are bad, and the first reason of each."""

    def __init__(self, rows: int) -> None:
        self._code = np.full(rows, -1, np.int32)
        self._reasons: list[str] = []

    def mark(self, bad: Mask, reason: str) -> None:
        """Note the rows of a mask as bad for a reason, those that are already bad aside."""
        fresh = bad & (self._code < 0)
        if fresh.any():
            self._code[fresh] = len(self._reasons)
            self._reasons.append(reason)

    @property
    def good(self) -> Mask:
        """The rows without a fault."""
        return self._code < 0

    def bad_rows(self) -> I64:
        """Return the numbers of the bad rows, ascending."""
        return np.flatnonzero(self._code >= 0)

    def reason(self, row: int) -> str:
        """Return the reason of a bad row."""
        return self._reasons[int(self._code[row])]


class RejectedFile:
    """``<file>.rejected.ndjson``: made when the first line is rejected; the one of an earlier import is deleted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._file: TextIOWrapper | None = None
        path.unlink(missing_ok=True)

    def write(self, rejected: Sequence[Rejected]) -> None:
        """Append lines; they are on disk when `close` has returned."""
        if not rejected:
            return
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        for r in rejected:
            self.reasons[r.reason] += 1
            self._file.write(json.dumps({"line": r.line, "reason": r.reason, "raw": r.raw}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file, if one was made."""
        if self._file is not None:
            self._file.close()
            self._file = None
