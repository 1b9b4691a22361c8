"""The oracle: docs/reference/semantics.md, one record at a time, with lists and dicts.

It shares no code with the product and is meant to be read beside the text: the numbers in the comments are its steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fluvial.oracle.aggregates import Held, aggregate
from fluvial.oracle.records import Dead, Event, Late, OracleResult, Record, Row
from fluvial.oracle.windows import NEVER, Instant, closed_through, covering, is_valid
from fluvial.schemas.declarations import UPSTREAM_IDENTITY, Hopping, Pipeline, Session, Tumbling


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
    oracle = _Oracle(pipeline, upstream_partitions, max_ahead_ms, generation, partition)
    for record in records:
        oracle.handle(record)
    if exhausted:
        oracle.exhaust()
    assert oracle.result.ledger.adds_up()
    return oracle.result


@dataclass(slots=True)
class _Window:
    start: int
    end: int
    events: list[Held] = field(default_factory=list)
    identities: set[Any] = field(default_factory=set)
    duplicates: int = 0
    next_early: Instant = NEVER

    @property
    def last(self) -> int:
        return max(t for _, t, _ in self.events)


@dataclass(slots=True)
class _Key:
    values: tuple[Any, ...]
    record_key: bytes | None
    K: Instant = NEVER
    H: Instant = NEVER
    C: Instant = NEVER
    heard: int = 0
    windows: list[_Window] = field(default_factory=list)


class _Oracle:
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
        self.C: Instant = NEVER  # of every key, with partition time
        self.keys: dict[tuple[Any, ...], _Key] = {}
        self.busy: dict[tuple[Any, ...], _Key] = {}  # those with open windows
        self.offset = -1
        self.heard = 0
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
                self._write(key, window, final=False)

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
        for key in self.keys.values():
            if key.record_key == record.key:
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
        if t > record.timestamp + self.max_ahead_ms:
            self._dead_letter("ahead")
            return
        if not self.rekeyed:
            self.P = max(self.P, t)  # 1
        self._close_by_partition()  # 2
        values = tuple(event[name] for name in self.pipeline.key)
        if values not in self.keys:
            self.keys[values] = _Key(values, record.key)
        key = self.keys[values]
        self._hear(key)  # 3
        if isinstance(self.pipeline.window, Session):
            self._event_of_session(key, t, event, self.pipeline.window)
        else:
            self._event_of_windows(key, t, event, self.pipeline.window)

    # Steps 4 to 6.

    def _event_of_windows(self, key: _Key, t: int, event: Event, aligned: Tumbling | Hopping) -> None:
        C = self._closed_through(key)
        identity = self._identity(t, event)
        aggregated = duplicate = False
        for start, end in covering(aligned, t):
            if end <= C:
                continue
            window = next((w for w in key.windows if w.start == start), None)
            if window is not None and identity is not None and identity in window.identities:
                window.duplicates += 1
                duplicate = True
                continue
            if window is None:
                window = _Window(start, end)
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

    def _event_of_session(self, key: _Key, t: int, event: Event, session: Session) -> None:
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
                    window.duplicates += 1
                    self.result.ledger.duplicates += 1
                    return
        merged = _Window(t, t + gap)
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

    def _hold(self, key: _Key, window: _Window, t: int, event: Event, identity: Any) -> None:
        is_first = not window.events
        window.events.append((self.offset, t, event))
        if identity is not None:
            window.identities.add(identity)
        early_ms = self.pipeline.early_ms
        if early_ms == 0:
            return
        if is_first:
            window.next_early = t + early_ms
        elif t >= window.next_early:
            self._write(key, window, final=False)
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
            for key in list(self.busy.values()):
                self._finish(key, [w for w in key.windows if w.end + self.pipeline.lateness_ms <= self.P])
            self.C = closed_through(self.pipeline.window, self.P - self.pipeline.lateness_ms)
            return
        silent = [key for key in self.busy.values() if self.pipeline.idle_timeout_ms <= self.P - key.H]
        for key in sorted(silent, key=lambda k: (k.H, k.heard)):
            key.C = max(w.end for w in key.windows)
            self._finish(key, list(key.windows))

    def _advance(self, key: _Key, t: int) -> None:
        key.K = max(key.K, t)
        self._finish(key, [w for w in key.windows if w.end + self.pipeline.lateness_ms <= key.K])
        key.C = max(key.C, closed_through(self.pipeline.window, key.K - self.pipeline.lateness_ms))

    def _finish(self, key: _Key, windows: list[_Window]) -> None:
        for window in sorted(windows, key=lambda w: w.start):
            self._write(key, window, final=True)
            key.windows.remove(window)
        if not key.windows:
            self.busy.pop(key.values, None)

    def _closed_through(self, key: _Key) -> Instant:
        return self.C if self.pipeline.time == "partition" else key.C

    def _hear(self, key: _Key) -> None:
        key.H = self.P
        self.heard += 1
        key.heard = self.heard

    # What is written.

    def _late(self, event: Event, C: Instant, t: int) -> None:
        self.result.ledger.late += 1
        self.result.late.append(Late(self.offset, event, int(C - t)))

    def _dead_letter(self, reason: Any) -> None:
        self.result.ledger.dead_lettered += 1
        self.result.dead.append(Dead(self.offset, reason))

    def _write(self, key: _Key, window: _Window, *, final: bool) -> None:
        row: Row = dict(zip(self.pipeline.key, key.values, strict=True))
        row["window_start"] = window.start
        row["window_end"] = window.end
        row.update(aggregate(self.pipeline, window.events))
        row["duplicates"] = window.duplicates
        row["final"] = final
        row["generation"] = self.generation
        row["source_partition"] = self.partition
        row["source_offset"] = self.offset
        self.result.rows.append(row)
