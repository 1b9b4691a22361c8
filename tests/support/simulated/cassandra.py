"""Cassandra in memory: replicas whose cells have write timestamps and expire, behind a coordinator that may not know.

A write goes to every replica on its own: it may come late, after the client gave up, or not at all until a repair. The
client hears success when as many replicas as the consistency level asks for have answered in time.
"""

import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cassandra import ConsistencyLevel, OperationTimedOut, Unavailable, WriteTimeout, WriteType

from support.simulated.loop import OUTSIDE, Process, VirtualLoop

Key = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, when it was written (the protocol's µs), and when it expires (the cluster's clock, seconds; None: never)."""

    written: int
    value: bytes
    expires: float | None

    def beats(self, other: "Cell") -> bool:
        """Return whether a replica that has both keeps this one: Cassandra's rule, also for equal timestamps."""
        return self._rank > other._rank

    @property
    def _rank(self) -> tuple[int, bool, float, bytes]:
        return self.written, self.expires is not None, self.expires or 0.0, self.value


CellsOfRow = dict[str, Cell]


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table: its columns with their CQL types, in order, and its primary key."""

    name: str
    columns: Mapping[str, str]
    partition_key: tuple[str, ...]
    clustering: tuple[str, ...]


class Replica:
    """One node's tables."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.rows: dict[str, dict[Key, CellsOfRow]] = {}

    def take(self, table: str, key: Key, cells: CellsOfRow) -> None:
        """Merge a row in: cell by cell, the last write wins. Rows are never changed in place: replicas share them."""
        rows = self.rows.setdefault(table, {})
        row = rows.get(key)
        if row is None:
            rows[key] = cells
        elif row is not cells:
            merged = {**row, **{n: c for n, c in cells.items() if n not in row or c.beats(row[n])}}
            rows[key] = cells if merged == cells else row if merged == row else merged


@dataclass(frozen=True, slots=True)
class Mood:
    """How the nodes behave: seconds and probabilities per replica and write."""

    latency: tuple[float, float] = (0.001, 0.02)
    slow: float = 0.0
    slow_seconds: tuple[float, float] = (0.5, 8.0)
    lost: float = 0.0
    #: How many partitions take no writes, as one that is too large or compacted just now.
    hot: float = 0.0


class FakeCassandra:
    """Three replicas of everything."""

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        mood: Mood,
        tables: Sequence[TableOf],
        consistency: int,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.mood = mood
        self.tables = {t.name: t for t in tables}
        self.replicas = [Replica(f"node{i}") for i in (1, 2, 3)]
        self.needed = 1 if consistency in (ConsistencyLevel.ONE, ConsistencyLevel.LOCAL_ONE) else 2
        self._hot: dict[bytes, bool] = {}
        self.statements: dict[bytes, tuple[TableOf, tuple[str, ...], bool]] = {}

    # --- writing

    def prepare(self, query: str) -> bytes:
        """Return a statement's id."""
        found = re.fullmatch(
            r'INSERT INTO "?\w+"?\."?(\w+)"? \((.*)\) VALUES \(.*\) USING TIMESTAMP \?( AND TTL \?)?', query
        )
        assert found, query
        names = tuple(n.strip().strip('"') for n in found[2].split(","))
        query_id = f"{found[1]:16.16}".encode()
        self.statements[query_id] = (self.tables[found[1]], names, found[3] is not None)
        return query_id

    def write(
        self, process: Process, body: bytes, timeout: float, answered: Callable[[BaseException | None], None]
    ) -> None:
        """Write a BATCH's rows; the process hears what the coordinator knows."""
        heard = [False]

        def answer(error: BaseException | None) -> None:
            if not heard[0]:
                heard[0] = True
                self.loop.call_later(self._latency(), answered, error, context=process.context)

        self.loop.call_later(self._latency(), self._coordinate, body, answer, context=OUTSIDE)
        self.loop.call_later(timeout, answer, OperationTimedOut(), context=OUTSIDE)

    def _coordinate(self, body: bytes, answer: Callable[[BaseException | None], None]) -> None:
        if sum(r.up for r in self.replicas) < self.needed:
            answer(Unavailable("simulated", required_replicas=self.needed, alive_replicas=0))
            return
        now = self.loop.time()
        rows = [(table, key, _cells(cells, now)) for table, key, cells in self._rows(body)]
        self.loop.call_later(
            1.5, answer, WriteTimeout("simulated", write_type=WriteType.UNLOGGED_BATCH), context=OUTSIDE
        )
        if any(self._is_hot(key[0]) for _, key, _ in rows):
            return
        acknowledged = [0]

        def reach(replica: Replica) -> None:
            if not replica.up:
                return
            for table, key, cells in rows:
                replica.take(table, key, cells)
            acknowledged[0] += 1
            if acknowledged[0] == self.needed:
                answer(None)

        for replica in self.replicas:
            if not replica.up or self.rng.random() < self.mood.lost:
                continue
            slow = self.rng.random() < self.mood.slow
            delay = self.rng.uniform(*self.mood.slow_seconds) if slow else self._latency()
            self.loop.call_later(delay, reach, replica, context=OUTSIDE)

    def _is_hot(self, key: bytes) -> bool:
        if key not in self._hot:
            self._hot[key] = self.rng.random() < self.mood.hot
        return self.mood.hot > 0 and self._hot[key]

    def _latency(self) -> float:
        return self.rng.uniform(*self.mood.latency)

    def _rows(self, body: bytes) -> list[tuple[str, Key, tuple[dict[str, bytes], int, int | None]]]:
        """Read the rows of a BATCH message as the protocol has them."""
        rows, at = [], 0
        while at < len(body):
            kind, n = struct.unpack_from(">BH", body, at)
            assert kind == 1
            table, names, expires = self.statements[body[at + 3 : at + 3 + n]]
            at += 3 + n
            (count,) = struct.unpack_from(">H", body, at)
            at += 2
            values: list[bytes | None] = []
            for _ in range(count):
                (n,) = struct.unpack_from(">i", body, at)
                at += 4
                values.append(body[at : at + n] if n >= 0 else None)
                at += max(n, 0)
            held = {name: v for name, v in zip(names, values, strict=False) if v is not None}
            written = int.from_bytes(values[len(names)] or b"", "big", signed=True)
            ttl = int.from_bytes(values[-1] or b"", "big") if expires else None
            key = tuple(held[name] for name in (*table.partition_key, *table.clustering))
            rows.append((table.name, key, (held, written, ttl)))
        return rows

    # --- reading

    def merged(self, table: str, replicas: Sequence[Replica]) -> dict[Key, CellsOfRow]:
        """Return what these replicas have together."""
        merged = Replica("merged")
        for replica in replicas:
            for key, cells in replica.rows.get(table, {}).items():
                merged.take(table, key, cells)
        return merged.rows.get(table, {})

    def read(self, table: str, replicas: Sequence[Replica]) -> dict[Key, CellsOfRow]:
        """Return the live rows of these replicas merged, and repair those among them that lag, as a quorum read does."""
        found = self.merged(table, replicas)
        for replica in replicas:
            for key, cells in found.items():
                replica.take(table, key, cells)
        return self.live(found)

    def views(self, readers: int) -> dict[str, dict[str, dict[Key, CellsOfRow]]]:
        """Return the live rows of every table as every choice of so many replicas has them, and repair nothing."""
        return {
            " and ".join(r.name for r in chosen): {t: self.live(self.merged(t, chosen)) for t in self.tables}
            for chosen in combinations(self.replicas, readers)
        }

    def live(self, rows: Mapping[Key, CellsOfRow]) -> dict[Key, CellsOfRow]:
        """Return the rows that have cells which have not expired."""
        now = self.loop.time()
        kept = {
            k: {n: c for n, c in cells.items() if c.expires is None or c.expires > now} for k, cells in rows.items()
        }
        return {k: cells for k, cells in kept.items() if cells}

    def read_quorum(self, table: str) -> dict[Key, CellsOfRow] | None:
        """Return a table at QUORUM: two of the replicas that are up; None when there are fewer."""
        up = [r for r in self.replicas if r.up]
        return self.read(table, self.rng.sample(up, 2)) if len(up) >= 2 else None

    def repair(self) -> None:
        """Make all replicas equal."""
        for table in self.tables:
            self.read(table, self.replicas)


class VersionWatch:
    """A reader at quorum: `went_back` is every row that it saw in an older version than before (I3)."""

    def __init__(self, cassandra: FakeCassandra) -> None:
        self.went_back: list[str] = []
        self._cassandra = cassandra
        self._seen: dict[tuple[str, Key], int] = {}

    def look(self) -> None:
        """Read every table once."""
        for table in self._cassandra.tables:
            for key, cells in (self._cassandra.read_quorum(table) or {}).items():
                version = cells["final"].written
                before = self._seen.get((table, key), -1)
                if version < before:
                    self.went_back.append(f"{table} {key}: a reader saw version {before}, then {version}")
                self._seen[table, key] = max(before, version)


def _cells(row: tuple[dict[str, bytes], int, int | None], now: float) -> CellsOfRow:
    held, written, ttl = row
    expires = None if ttl is None else now + ttl
    return {name: Cell(written, value, expires) for name, value in held.items()}
