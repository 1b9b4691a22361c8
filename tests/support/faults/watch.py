"""What is watched while a trial runs: a reader that no version may go back for, and how far the groups are."""

import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluvial.cassandra import close, connect
from fluvial.errors import FluvialError
from fluvial.schemas.declarations import Pipeline
from fluvial.services.progress import GroupProgress
from fluvial.settings import CassandraSettings, KafkaSettings

POLL_SECONDS = 0.25


class VersionReader(threading.Thread):
    """Reads whole tables again and again at quorum: a row's write timestamp never falls, and no row disappears (I3)."""

    def __init__(self, cassandra: CassandraSettings, pipelines: Sequence[Pipeline]) -> None:
        super().__init__(name="version-reader", daemon=True)
        self._cassandra = cassandra.model_copy(update={"read_consistency": "QUORUM", "request_timeout_seconds": 20.0})
        self._pipelines = pipelines
        self._done = threading.Event()
        self.seen: dict[tuple[Any, ...], int] = {}
        self.rounds = 0
        self.violations: list[str] = []
        self.unanswered: list[str] = []

    def run(self) -> None:
        """Read until stopped; what is not answered is no violation."""
        session: Any = None
        while not self._done.wait(POLL_SECONDS):
            try:
                if session is None:
                    session = connect(self._cassandra, "read", keyspace=self._cassandra.keyspace)
                for pipeline in self._pipelines:
                    self._read(session, pipeline)
                self.rounds += 1
            except Exception as e:
                self.unanswered.append(repr(e))
        if session is not None:
            close(session)

    def stop(self) -> None:
        """Read no more."""
        self._done.set()
        self.join(60)

    def _read(self, session: Any, pipeline: Pipeline) -> None:
        t = pipeline.table
        key = (*t.partition_key, t.bucket, "window_start", *t.clustering)
        query = f"SELECT {', '.join(key)}, writetime(generation) AS version FROM {t.name}"
        found = {(t.name, *row[:-1]): row[-1] for row in session.execute(query)}
        for row, version in found.items():
            before = self.seen.get(row)
            if before is not None and version < before:
                self.violations.append(f"I3: {row} went back from {before >> 44}/{before & (1 << 44) - 1} to {version}")
            self.seen[row] = version
        for row in [r for r in self.seen if r[0] == t.name and r not in found]:
            self.violations.append(f"I3: {row} disappeared")
            del self.seen[row]


@dataclass
class Recovery:
    """A death, how far the log went then, and how long it took until all of that was handled."""

    name: str
    group: str
    ends: dict[tuple[str, int], int]
    since: float
    seconds: float | None = None


@dataclass
class Groups:
    """The consumer groups of a trial and what they read."""

    kafka: KafkaSettings
    topics: dict[str, frozenset[str]]
    recoveries: list[Recovery] = field(default_factory=list)
    _progress: GroupProgress | None = None

    def begin(self, name: str, group: str) -> None:
        """Measure a recovery from now on."""
        ends: dict[tuple[str, int], int] = {}
        with contextlib.suppress(FluvialError):
            ends = {(p.topic, p.partition): p.end for p in self.positions(group)}
        self.recoveries.append(Recovery(name, group, ends, time.monotonic()))

    def look(self) -> None:
        """Note which recoveries are complete."""
        for group in {r.group for r in self.recoveries if r.seconds is None}:
            committed = {(p.topic, p.partition): max(p.committed, 0) for p in self.positions(group)}
            now = time.monotonic()
            for r in self.recoveries:
                if r.group == group and r.seconds is None and all(committed[at] >= end for at, end in r.ends.items()):
                    r.seconds = now - r.since

    def lag(self) -> tuple[int, tuple[int, ...]]:
        """Return how much all groups have to do, and the ends of all that they read."""
        found = [p for group in self.topics for p in self.positions(group)]
        return sum(p.lag for p in found), tuple(p.end for p in found)

    def positions(self, group: str) -> Iterable[Any]:
        """Return a group's places.

        Raises:
            TransportError: Kafka does not answer.
        """
        if self._progress is None:
            self._progress = GroupProgress(self.kafka)
        return self._progress.positions(group, self.topics[group])
