"""What a table must hold after a prefix of a partition, and no more: final rows, and the windows that are still open."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fluvial.oracle.oracle import Key, OpenWindow, Oracle
from fluvial.oracle.records import Event, Row
from fluvial.oracle.windows import Instant
from fluvial.schemas.declarations import Pipeline

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The windows that are looked at: those that start at ``begin`` or later, and before ``end`` (epoch ms; None: any)."""

    begin: int | None = None
    end: int | None = None

    def __contains__(self, start: int) -> bool:
        return (self.begin is None or self.begin <= start) and (self.end is None or start < self.end)


def every_key(values: Values) -> bool:
    """Want all keys."""
    return True


class Recompute(Oracle):
    """The oracle for large logs: early rows that are overwritten are never made, keys that are not wanted never folded.

    Every record still moves the partition's time, on which the wanted keys depend too. The ledger is the partition's own
    only when every key is wanted.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        partition: int,
        upstream_partitions: int = 0,
        max_ahead_ms: int = 300_000,
        generation: int = 0,
        wants: Callable[[Values], bool] = every_key,
        span: Span = Span(),
    ) -> None:
        super().__init__(pipeline, upstream_partitions, max_ahead_ms, generation, partition)
        self._wants = wants
        self._span = span
        self.columns: tuple[str, ...] = ()
        self.finals: dict[Values, dict[int, tuple[Any, ...]]] = {}

    def known_key(self, values: Values, record_key: bytes | None) -> Key | None:
        """Return the key if it is wanted."""
        return super().known_key(values, record_key) if self._wants(values) else None

    def write(self, key: Key, window: OpenWindow, *, final: bool) -> None:
        """Keep a final row; of an early one only remember that it was written."""
        if window.start not in self._span:
            return
        if not final:
            window.early_at = self.offset
            return
        row = self.row(key.values, window, final=True, offset=self.offset)
        self.columns = tuple(row)
        self.finals.setdefault(key.values, {})[window.start] = tuple(row.values())

    def _late(self, event: Event, C: Instant, t: int) -> None:
        self.result.ledger.late += 1

    def _dead_letter(self, reason: Any) -> None:
        self.result.ledger.dead_lettered += 1

    def forget(self, values: Values) -> None:
        """Drop a key that is no longer wanted."""
        self.finals.pop(values, None)
        self.busy.pop(values, None)
        key = self.keys.pop(values, None)
        if key is not None:
            self.of_record_key[key.record_key].remove(key)

    def final_rows(self) -> Iterator[Row]:
        """Yield the final rows."""
        for rows in self.finals.values():
            for row in rows.values():
                yield dict(zip(self.columns, row, strict=True))

    def open_windows(self) -> Iterator[tuple[Values, OpenWindow]]:
        """Yield the windows that the prefix leaves open."""
        for key in self.busy.values():
            for window in key.windows:
                if window.start in self._span:
                    yield key.values, window
