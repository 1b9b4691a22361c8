"""The oracle: docs/reference/semantics.md, one record at a time, with lists and dicts.

It shares no code with the product and is meant to be read beside the text: the numbers in the comments are its steps.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from fluvial.oracle.aggregates import Held, aggregate
from fluvial.oracle.records import Dead, Event, Late, OracleResult, Record, Row
from fluvial.oracle.windows import NEVER, Instant, closed_through, covering, is_valid
from fluvial.schemas.declarations import UPSTREAM_IDENTITY, Hopping, Pipeline, Session, Tumbling

# 0001-01-01T00:00Z (R3).
EARLIEST_MS = -62_135_596_800_000


def run(
    pipeline: Pipeline,
    records: Iterable[Record],
    *,
    upstream_partitions: int = 0,
    max_ahead_ms: int = 300_000,
    generation: int = 0,
    partition: int = 0,
    exhausted: bool = False,
) -> OracleResult:
    """Return what the contract says about these records (all of one partition, in offset order).

    ``upstream_partitions`` is how many partitions feed a rekeyed source topic; ``exhausted`` adds the early row of
    every window that is still open.
    """
    oracle = Oracle(pipeline, upstream_partitions, max_ahead_ms, generation, partition)
    for record in records:
        oracle.handle(record)
    if exhausted:
        oracle.exhaust()
    assert oracle.result.ledger.adds_up()
    return oracle.result


@dataclass(slots=True)
class OpenWindow:
    """A window that is not final: what it has aggregated, and the offsets of the duplicates found in it."""

    start: int
    end: int
    events: list[Held] = field(default_factory=list)
    identities: set[Any] = field(default_factory=set)
    duplicates: list[int] = field(default_factory=list)
    next_early: Instant = NEVER
    early_at: int | None = None  # the offset of its newest early row

    @property
    def last(self) -> int:
        return max(t for _, t, _ in self.events)


@dataclass(slots=True)
class Key:
    """What is known of one pipeline key; the letters are the contract's."""

    values: tuple[Any, ...]
    record_key: bytes | None
    K: Instant = NEVER
    H: Instant = NEVER
    C: Instant = NEVER
    windows: list[OpenWindow] = field(default_factory=list)


class Oracle:
    """One partition of one pipeline, record by record: see `run`."""

    def __init__(
        self, pipeline: Pipeline, upstream_partitions: int, max_ahead_ms: int, generation: int, partition: int
    ) -> None:
        self.pipeline = pipeline
        self.max_ahead_ms = max_ahead_ms
        self.generation = generation
        self.partition = partition
        self.rekeyed = pipeline.source in {rekey.topic for rekey in pipeline.upstream}
        if self.rekeyed and (upstream_partitions < 1 or pipeline.time != "partition"):
            raise ValueError("a rekeyed source has upstream partitions and partition time")
        self.announced: list[Instant] = [NEVER] * upstream_partitions
        self.P: Instant = NEVER
        self.closed_at: Instant = NEVER
        self.next_close: Instant = math.inf  # with partition time: no window closes before P is here
        self.C: Instant = NEVER  # of every key, with partition time
        self.keys: dict[tuple[Any, ...], Key] = {}
        self.of_record_key: dict[bytes | None, list[Key]] = {}
        self.busy: dict[tuple[Any, ...], Key] = {}  # those with open windows, in the order in which they were heard
        self.offset = -1
        self.result = OracleResult()

    # One record.

    def handle(self, record: Record) -> None:
        self.offset = record.offset
        self.result.ledger.records += 1
        match record.kind:
            case "event":
                self._event(record)
            case "tick":
                self._partition_tick(record)
            case "keyed_tick":
                self._keyed_tick(record)
            case "bad":
                self._dead_letter("bad")

    def exhaust(self) -> None:
        for key in self.keys.values():
            for window in key.windows:
                self.write(key, window, final=False)

    def _partition_tick(self, record: Record) -> None:
        assert record.time is not None
        if self.rekeyed:
            if record.upstream is None or not 0 <= record.upstream < len(self.announced):
                self._dead_letter("bad")
                return
            self.announced[record.upstream] = max(self.announced[record.upstream], record.time)
            self.P = max(self.P, min(self.announced))
        else:
            self.P = max(self.P, record.time)  # 1
        self.result.ledger.ticks += 1
        self._close_by_partition()  # 2

    def _keyed_tick(self, record: Record) -> None:
        assert record.time is not None
        assert record.key is not None
        if self.rekeyed:
            self._dead_letter("bad")
            return
        self.result.ledger.ticks += 1
        for key in list(self.of_record_key.get(record.key, ())):
            self._hear(key)
            if self.pipeline.time == "key":
                self._advance(key, record.time)

    def _event(self, record: Record) -> None:
        event = record.event
        assert event is not None
        if not is_valid(self.pipeline, event):
            self._dead_letter("invalid")
            return
        t = event[self.pipeline.event_time]
        if t < EARLIEST_MS:
            self._dead_letter("ancient")
            return
        if not self.rekeyed and t > record.timestamp + self.max_ahead_ms:
            self._dead_letter("ahead")
            return
        if not self.rekeyed:
            self.P = max(self.P, t)  # 1
        self._close_by_partition()  # 2
        values = tuple(event[name] for name in self.pipeline.key)
        key = self.known_key(values, record.key)
        if key is None:
            return
        self._hear(key)  # 3
        if isinstance(self.pipeline.window, Session):
            self._event_of_session(key, t, event, self.pipeline.window)
        else:
            self._event_of_windows(key, t, event, self.pipeline.window)

    def known_key(self, values: tuple[Any, ...], record_key: bytes | None) -> Key | None:
        """Return the key of these values, which is known from now on (R4)."""
        if values not in self.keys:
            self.keys[values] = Key(values, record_key)
            self.of_record_key.setdefault(record_key, []).append(self.keys[values])
        return self.keys[values]

    # Steps 4 to 6.

    def _event_of_windows(self, key: Key, t: int, event: Event, aligned: Tumbling | Hopping) -> None:
        C = self._closed_through(key)
        identity = self._identity(t, event)
        aggregated = duplicate = False
        for start, end in covering(aligned, t):
            if end <= C:
                continue
            window = next((w for w in key.windows if w.start == start), None)
            if window is not None and identity is not None and identity in window.identities:
                window.duplicates.append(self.offset)
                duplicate = True
                continue
            if window is None:
                window = OpenWindow(start, end)
                key.windows.append(window)
                self.busy[key.values] = key
            self._hold(key, window, t, event, identity)
            aggregated = True
        if aggregated:
            self.result.ledger.aggregated += 1
            if self.pipeline.time == "key":
                self._advance(key, t)
        elif duplicate:
            self.result.ledger.duplicates += 1
        else:
            self._late(event, C, t)

    def _event_of_session(self, key: Key, t: int, event: Event, session: Session) -> None:
        gap = session.gap_ms
        C = self._closed_through(key)
        if t + gap <= C:
            self._late(event, C, t)
            return
        identity = self._identity(t, event)
        near = sorted(
            (w for w in key.windows if w.start - gap <= t <= w.last + gap),
            key=lambda w: w.start,
        )
        if identity is not None:
            for window in near:
                if identity in window.identities:
                    window.duplicates.append(self.offset)
                    self.result.ledger.duplicates += 1
                    return
        merged = OpenWindow(t, t + gap)
        for window in near:
            key.windows.remove(window)
            merged.events += window.events
            merged.identities |= window.identities
            merged.duplicates += window.duplicates
        merged.start = min([t] + [held_t for _, held_t, _ in merged.events])
        merged.end = max([t] + [held_t for _, held_t, _ in merged.events]) + gap
        key.windows.append(merged)
        self.busy[key.values] = key
        self._hold(key, merged, t, event, identity)
        self.result.ledger.aggregated += 1
        if self.pipeline.time == "key":
            self._advance(key, t)

    def _hold(self, key: Key, window: OpenWindow, t: int, event: Event, identity: Any) -> None:
        is_first = not window.events
        self.next_close = min(self.next_close, window.end + self.pipeline.lateness_ms)
        window.events.append((self.offset, t, event))
        if identity is not None:
            window.identities.add(identity)
        early_ms = self.pipeline.early_ms
        if early_ms == 0:
            return
        if is_first:
            window.next_early = t + early_ms
        elif t >= window.next_early:
            self.write(key, window, final=False)
            window.next_early = t + early_ms

    def _identity(self, t: int, event: Event) -> Any:
        if self.pipeline.identity == UPSTREAM_IDENTITY:
            return (event["upstream_partition"], event["upstream_offset"], event["upstream_index"])
        for name in self.pipeline.identity:
            if event[name] is not None:
                # Python's 0.0 == -0.0 (and equal hashes) is the rule; the deciding field is part of the identity.
                return (name, event[name], t if self.pipeline.identity_has_time else None)
        return None

    # Closing.

    def _close_by_partition(self) -> None:
        # Nothing that was opened or heard since P last moved can be closed by P where it is: only the time is saved.
        if self.closed_at == self.P:
            return
        self.closed_at = self.P
        if self.pipeline.time == "partition":
            if self.next_close <= self.P:
                for key in list(self.busy.values()):
                    self._finish(key, [w for w in key.windows if w.end + self.pipeline.lateness_ms <= self.P])
                ends = (w.end for key in self.busy.values() for w in key.windows)
                self.next_close = min(ends, default=math.inf) + self.pipeline.lateness_ms
            self.C = closed_through(self.pipeline.window, self.P - self.pipeline.lateness_ms)
            return
        # R7: the longest silent come first.
        silent = list(takewhile(lambda k: self.pipeline.idle_timeout_ms <= self.P - k.H, self.busy.values()))
        for key in silent:
            key.C = max(w.end for w in key.windows)
            self._finish(key, list(key.windows))

    def _advance(self, key: Key, t: int) -> None:
        key.K = max(key.K, t)
        self._finish(key, [w for w in key.windows if w.end + self.pipeline.lateness_ms <= key.K])
        key.C = max(key.C, closed_through(self.pipeline.window, key.K - self.pipeline.lateness_ms))

    def _finish(self, key: Key, windows: list[OpenWindow]) -> None:
        for window in sorted(windows, key=lambda w: w.start):
            self.write(key, window, final=True)
            key.windows.remove(window)
        if not key.windows:
            self.busy.pop(key.values, None)

    def _closed_through(self, key: Key) -> Instant:
        return self.C if self.pipeline.time == "partition" else key.C

    def _hear(self, key: Key) -> None:
        key.H = self.P
        if key.values in self.busy:
            self.busy[key.values] = self.busy.pop(key.values)

    # What is written.

    def _late(self, event: Event, C: Instant, t: int) -> None:
        self.result.ledger.late += 1
        self.result.late.append(Late(self.offset, event, int(C - t)))

    def _dead_letter(self, reason: Any) -> None:
        self.result.ledger.dead_lettered += 1
        self.result.dead.append(Dead(self.offset, reason))

    def write(self, key: Key, window: OpenWindow, *, final: bool) -> None:
        """Note a row of the window as it is now."""
        window.early_at = self.offset
        self.result.rows.append(self.row(key.values, window, final=final, offset=self.offset))

    def row(self, values: tuple[Any, ...], window: OpenWindow, *, final: bool, offset: int) -> Row:
        """Return a window's row as of an offset."""
        row: Row = dict(zip(self.pipeline.key, values, strict=True))
        row["window_start"] = window.start
        row["window_end"] = window.end
        row.update(aggregate(self.pipeline, [held for held in window.events if held[0] <= offset]))
        row["duplicates"] = sum(at <= offset for at in window.duplicates)
        row["final"] = final
        row["generation"] = self.generation
        row["source_partition"] = self.partition
        row["source_offset"] = offset
        return row
