"""What a table must hold after a prefix of a partition, and no more: final rows, and the windows that are still open."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fluvial.oracle.oracle import Key, OpenWindow, Oracle
from fluvial.oracle.records import Event, Record, Row
from fluvial.oracle.windows import Instant, covering, is_valid
from fluvial.schemas.declarations import Hopping, Pipeline, Session, Tumbling

Values = tuple[Any, ...]
# Offset, event time, event, identity.
Member = tuple[int, int, Event, Any]


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
        replayed: Sequence[Span] = (),
        beside: Sequence[Pipeline] = (),
    ) -> None:
        """Begin before the first record.

        Windows in ``replayed`` can be asked for with their late events. ``beside`` are the other pipelines that the
        worker runs on the topic: an event has to be valid for all (R2).
        """
        super().__init__(pipeline, upstream_partitions, max_ahead_ms, generation, partition)
        self._wants = wants
        self._span = span
        self._replayed = replayed
        self._beside = beside
        self._members: dict[Values, dict[int, list[Member]]] = {}
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

    def replayed_row(self, values: Values, start: int, *, offset: int) -> Row | None:
        """Return the row of a window that no event is too late for, as of an offset; None when it has no event by then."""
        window = self.pipeline.window
        if isinstance(window, Session):
            return None
        made = OpenWindow(start, start + window.size_ms)
        for at, t, event, identity in self._members.get(values, {}).get(start, ()):
            if at > offset:
                break
            if identity is not None and identity in made.identities:
                made.duplicates.append(at)
                continue
            made.events.append((at, t, event))
            if identity is not None:
                made.identities.add(identity)
        return self.row(values, made, final=True, offset=offset) if made.events else None

    def _event(self, record: Record) -> None:
        assert record.event is not None
        if all(is_valid(p, record.event) for p in self._beside):
            super()._event(record)
        else:
            self._dead_letter("invalid")

    def _event_of_windows(self, key: Key, t: int, event: Event, aligned: Tumbling | Hopping) -> None:
        if self._replayed:
            for start, _ in covering(aligned, t):
                if any(start in span for span in self._replayed):
                    member = self.offset, t, event, self._identity(t, event)
                    self._members.setdefault(key.values, {}).setdefault(start, []).append(member)
        super()._event_of_windows(key, t, event, aligned)

    def _late(self, event: Event, C: Instant, t: int) -> None:
        self.result.ledger.late += 1

    def _dead_letter(self, reason: Any) -> None:
        self.result.ledger.dead_lettered += 1

    def forget(self, values: Values) -> None:
        """Drop a key that is no longer wanted."""
        self.finals.pop(values, None)
        self._members.pop(values, None)
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
