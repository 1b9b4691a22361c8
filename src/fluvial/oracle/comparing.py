"""Rows that were found against rows that should be there: what is equal, what differs, what cannot be said yet."""

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fluvial.oracle.oracle import OpenWindow
from fluvial.oracle.recompute import Recompute, Values
from fluvial.oracle.records import Row
from fluvial.schemas.declarations import Pipeline, Session

OFFSET_BITS = 44
DAY_MS = 86_400_000
EXPIRY_TOLERANCE_MS = 60_000

# A row's pipeline key and its window's start.
Identity = tuple[Values, int]
Kind = Literal["cell", "write timestamp", "expiry", "missing", "not expected", "stale"]
Fate = Literal[
    "equal", "different", "missing", "not expected", "not settled", "preview of a session", "replayed",
    "of an older generation", "older than the log", "expired", "dead-lettered by the sink",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of a table: its columns (times in epoch ms), each regular cell's write timestamp, when it expires (epoch ms)."""

    columns: Mapping[str, Any]
    written: Mapping[str, int | None]
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be: of a cell (``column``) or of a whole row."""

    table: str
    key: tuple[tuple[str, Any], ...]
    window_start: int
    kind: Kind
    column: str | None
    found: Any
    wanted: Any


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the log: what was not settled when the table was read, and what cannot be recomputed.

    ``covered`` is, by source partition, the offset below which everything has been handled; ``whole_from`` the first
    window start (epoch ms) whose events the log still has all of; ``unsettled`` are rows that were on their way,
    ``set_aside`` those that the sink dead-lettered; ``replays`` says by generation which late events it took in
    ("unlimited": all, "declared": none but the usual).
    """

    generation: int
    covered: Mapping[int, int]
    now_ms: int
    whole_from: Mapping[int, int] = field(default_factory=dict)
    unsettled: Collection[Identity] = frozenset()
    set_aside: Collection[Identity] = frozenset()
    replays: Mapping[int, str] = field(default_factory=dict)


class Comparison:
    """One table (or one replica of it) held against what was recomputed: give it every row with `row`, then `finish`.

    ``differences`` keeps the first ``limit``; ``fates`` counts the rows and ``cells`` what was compared bit by bit.
    """

    def __init__(
        self, pipeline: Pipeline, recomputed: Iterable[Recompute], circumstances: Circumstances, *, limit: int
    ) -> None:
        self.pipeline = pipeline
        self.fates: Counter[Fate] = Counter()
        self.generations: Counter[int] = Counter()
        self.cells = 0
        self.problems = 0
        self.differences: list[Difference] = []
        self._limit = limit
        self._now = circumstances
        self._seen: set[Identity] = set()
        self._finals: dict[Identity, tuple[Recompute, tuple[Any, ...]]] = {}
        self._open: dict[Identity, tuple[Recompute, OpenWindow]] = {}
        self._parts: dict[int, Recompute] = {}
        for part in recomputed:
            self._parts[part.partition] = part
            for values, rows in part.finals.items():
                for start, row in rows.items():
                    self._finals[values, start] = part, row
            for values, window in part.open_windows():
                self._open[values, window.start] = part, window

    def row(self, found: FoundRow) -> None:
        """Take a row of the table; the caller leaves out those whose keys or windows were not asked for."""
        row, now = found.columns, self._now
        identity = self.identity(found)
        self._seen.add(identity)
        partition, offset, generation = row["source_partition"], row["source_offset"], row["generation"]
        beyond = offset is None or offset >= now.covered.get(partition, 0)
        if generation is not None and generation > now.generation:
            self.generations[generation] += 1
            self._compare_replayed(identity, found)
        elif identity in now.unsettled:
            self._count("not settled")
        elif self._before_the_log(partition, row["window_start"]):
            self._count("older than the log")
        elif identity in self._finals:
            self._compare(identity, found, self._final_row(identity))
        elif identity in self._open:
            part, window = self._open[identity]
            if beyond and generation == now.generation and partition == part.partition:
                self._count("not settled")
            elif isinstance(self.pipeline.window, Session) and not row["final"]:
                self._count("preview of a session")
            else:
                self._compare_open(identity, found, part, window)
        elif generation is not None and generation < now.generation:
            self.generations[generation] += 1
            self._count("of an older generation")
        elif beyond and partition in now.covered:
            self._count("not settled")
        elif isinstance(self.pipeline.window, Session) and row["final"] is False:
            self._count("preview of a session")
        else:
            self._count("not expected")
            self._differ(identity, "not expected", None, offset, None)

    def finish(self, owns: Callable[[Identity], bool] = lambda identity: True) -> None:
        """Look for what should be there and was not given; ``owns`` says of which rows a replica has to have a copy."""
        early = (i for i, (_, window) in self._open.items() if window.early_at is not None)
        for identity in (*self._finals, *early):
            if identity in self._seen or not owns(identity):
                continue
            part = (self._finals.get(identity) or self._open[identity])[0]
            if identity in self._now.unsettled:
                self._count("not settled")
            elif identity in self._now.set_aside:
                self._count("dead-lettered by the sink")
            elif self._before_the_log(part.partition, identity[1]):
                self._count("older than the log")
            elif self._expires(self._window_end(identity)) <= self._now.now_ms + EXPIRY_TOLERANCE_MS:
                self._count("expired")
            else:
                self._count("missing")
                if identity in self._finals:
                    wanted = self._final_row(identity)
                else:
                    wanted = self._open_row(identity, self._open[identity][1].early_at or 0)
                self._differ(identity, "missing", None, None, wanted["source_offset"])

    def identity(self, found: FoundRow) -> Identity:
        """Return which row it is."""
        return tuple(found.columns[name] for name in self.pipeline.key), found.columns["window_start"]

    def _compare_open(self, identity: Identity, found: FoundRow, part: Recompute, window: OpenWindow) -> None:
        offset = found.columns["source_offset"]
        # What a bounded run leaves of an open window may be newer than the last early row (R31), never older.
        if window.early_at is not None and (offset is None or offset < window.early_at):
            self._count("different")
            self._differ(identity, "stale", "source_offset", offset, window.early_at)
        elif offset is None or not window.events or min(held[0] for held in window.events) > offset:
            self._count("not expected")
            self._differ(identity, "not expected", None, offset, None)
        else:
            self._compare(identity, found, self._open_row(identity, offset))

    def _compare_replayed(self, identity: Identity, found: FoundRow) -> None:
        row, now = found.columns, self._now
        partition, offset = row["source_partition"], row["source_offset"]
        lateness = now.replays.get(row["generation"])
        part = self._parts.get(partition)
        unknown = part is None or offset is None or offset >= now.covered.get(partition, 0)
        if unknown or isinstance(self.pipeline.window, Session) or self._before_the_log(partition, identity[1]):
            self._count("replayed")
            return
        assert part is not None
        wanted: Row | None = None
        if lateness == "unlimited":
            wanted = part.replayed_row(*identity, offset=offset)
        elif lateness == "declared" and identity in self._finals:
            wanted = self._final_row(identity)
        elif lateness != "declared":
            self._count("replayed")
            return
        if wanted is None:
            self._count("not expected")
            self._differ(identity, "not expected", None, offset, None)
        else:
            self._compare(identity, found, wanted | {"generation": row["generation"]})

    def _compare(self, identity: Identity, found: FoundRow, wanted: Row) -> None:
        differences: list[tuple[Kind, str | None, Any, Any]] = []
        for name, value in wanted.items():
            if name not in found.columns:
                differences.append(("cell", name, "no such column", value))
            elif bits(value) != bits(found.columns[name]):
                differences.append(("cell", name, found.columns[name], value))
        stamp = wanted["generation"] << OFFSET_BITS | wanted["source_offset"]
        stamps = {name: at for name, at in found.written.items() if at is not None}
        if len(set(stamps.values())) == 1 and stamp not in stamps.values():
            differences.append(("write timestamp", None, next(iter(stamps.values())), stamp))
        else:
            differences.extend(("write timestamp", name, at, stamp) for name, at in stamps.items() if at != stamp)
        differences += self._expiry(found, wanted)
        self.cells += len(wanted)
        self._count("different" if differences else "equal")
        for difference in differences:
            self._differ(identity, *difference)

    def _expiry(self, found: FoundRow, wanted: Row) -> list[tuple[Kind, str | None, Any, Any]]:
        at = self._expires(wanted["window_end"])
        if not self.pipeline.table.retention_days:
            return [("expiry", None, found.expires_ms, None)] if found.expires_ms is not None else []
        if found.expires_ms is None or abs(found.expires_ms - at) > EXPIRY_TOLERANCE_MS:
            return [("expiry", None, found.expires_ms, int(at))]
        return []

    def _expires(self, window_end: int) -> float:
        days = self.pipeline.table.retention_days
        return window_end + days * DAY_MS if days else float("inf")

    def _window_end(self, identity: Identity) -> int:
        if identity in self._finals:
            return int(self._final_row(identity)["window_end"])
        return self._open[identity][1].end

    def _final_row(self, identity: Identity) -> Row:
        part, row = self._finals[identity]
        return dict(zip(part.columns, row, strict=True))

    def _open_row(self, identity: Identity, offset: int) -> Row:
        part, window = self._open[identity]
        return part.row(identity[0], window, final=False, offset=offset)

    def _before_the_log(self, partition: int, start: int) -> bool:
        return partition in self._now.whole_from and start < self._now.whole_from[partition]

    def _count(self, fate: Fate) -> None:
        self.fates[fate] += 1

    def _differ(self, identity: Identity, kind: Kind, column: str | None, found: Any, wanted: Any) -> None:
        self.problems += 1
        if len(self.differences) < self._limit:
            key = tuple(zip(self.pipeline.key, identity[0], strict=True))
            table = self.pipeline.table.name
            self.differences.append(Difference(table, key, identity[1], kind, column, found, wanted))


def bits(value: Any) -> Any:
    """Return what equal cells have in common: a double's bits, every NaN alike, an empty list like null."""
    if isinstance(value, float):
        return "NaN" if value != value else struct.pack(">d", value)
    if isinstance(value, list | tuple):
        return [bits(item) for item in value] or None
    return value
