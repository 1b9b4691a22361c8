"""Numbered writes and reads at a consistency level and a rate, with the same journal as the producer's."""

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cassandra import ConsistencyLevel, DriverException
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import FallthroughRetryPolicy, WhiteListRoundRobinPolicy

from fluvial.cassandra import PROTOCOL_VERSION, Purpose, close, connect, connected
from fluvial.cluster.cassandra import HOSTS
from fluvial.errors import FluvialError
from fluvial.settings import CassandraSettings, Consistency
from support.quorum.brokers import within
from support.quorum.producing import Journal

KEYS = 1000
TIMEOUT_SECONDS = 5.0
PATIENT_SECONDS = 60.0
KEYSPACE = "trial"
INSERT = f"INSERT INTO {KEYSPACE}.rows (key, value) VALUES (?, ?) USING TIMESTAMP ?"
SELECT = f"SELECT value FROM {KEYSPACE}.rows WHERE key = ?"
SCHEMA = (
    f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = "
    "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}",
    f"CREATE TABLE IF NOT EXISTS {KEYSPACE}.rows (key text PRIMARY KEY, value bigint)",
)


@dataclass(frozen=True)
class Rows:
    """The rows of one trial in the table of all trials: its keys begin with ``run``."""

    cassandra: CassandraSettings
    run: str

    def key(self, name: str | int) -> str:
        """Return a key of this trial."""
        return f"{self.run}-{name}"

    def write(self, level: str, keys: Sequence[int], value: int, hosts: Sequence[str] = HOSTS[:3]) -> int:
        """Write ``value`` to each of the keys, through some nodes; return how many writes were acknowledged."""
        with self._asking(hosts, level) as session:
            statement = session.prepare(INSERT)
            rows = [(self.key(k), value, value + 1) for k in keys]
            return sum(r.success for r in execute_concurrent_with_args(session, statement, rows, concurrency=50))

    def missing(self, level: Consistency, keys: Sequence[str]) -> int:
        """Count the keys that a reader at a level does not find."""
        settings = self.cassandra.model_copy(update={"read_consistency": level})
        with connected(settings, "read") as session:
            return sum(found is None for found in _values(session, keys))

    def older_at(self, host: str, level: str, keys: Sequence[int], value: int) -> int:
        """Count the keys whose value is older for a reader that asks the node at ``host``."""
        with self._asking([host], level) as session:
            found = _values(session, [self.key(k) for k in keys])
        return sum(v is None or v < value for v in found)

    def refused_at(self, host: str, level: str, keys: Sequence[int]) -> int:
        """Count the reads that the node at ``host`` does not answer."""
        with self._asking([host], level) as session:
            answers = execute_concurrent_with_args(
                session, session.prepare(SELECT), [(self.key(k),) for k in keys], raise_on_first_error=False
            )
            return sum(not a.success for a in answers)

    @contextmanager
    def _asking(self, hosts: Sequence[str], level: str) -> Iterator[Any]:
        """Give a session whose coordinators are ``hosts`` only, and which tries nothing again."""
        profile = ExecutionProfile(
            WhiteListRoundRobinPolicy(hosts),
            FallthroughRetryPolicy(),
            ConsistencyLevel.name_to_value[level],
            request_timeout=PATIENT_SECONDS,
        )
        cluster = Cluster(
            hosts,
            self.cassandra.port,
            protocol_version=PROTOCOL_VERSION,
            connect_timeout=PATIENT_SECONDS,
            control_connection_timeout=PATIENT_SECONDS,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        )
        try:
            yield cluster.connect()
        finally:
            cluster.shutdown()


def _values(session: Any, keys: Sequence[str]) -> list[int | None]:
    answers = execute_concurrent_with_args(session, session.prepare(SELECT), [(k,) for k in keys], concurrency=50)
    rows = [answer.result_or_exc.one() for answer in answers]
    return [None if row is None else row.value for row in rows]


def prepare_rows(cassandra: CassandraSettings) -> Rows:
    """Make the table when it is not there, and write `KEYS` rows to all replicas; nodes that have just started may need time."""
    rows = Rows(cassandra.model_copy(update={"request_timeout_seconds": PATIENT_SECONDS}), uuid.uuid4().hex[:8])

    def made() -> bool | None:
        try:
            with connected(rows.cassandra, "write") as session:
                for statement in SCHEMA:
                    session.execute(statement)
            return rows.write("ALL", range(KEYS), 0) == KEYS or None
        except (DriverException, NoHostAvailable, FluvialError):
            return None

    within(180, made, 1.0)
    return rows


class Asker:
    """Writes new rows (``purpose`` "write") or reads old ones at ``level`` until stopped; a context manager.

    Nothing is tried again, so that the journal tells what a single request sees, for which it waits for 5 s; the session is
    fluvial's own.
    """

    def __init__(self, rows: Rows, purpose: Purpose, level: Consistency, *, rate: float = 25.0) -> None:
        self._rows, self.purpose, self.level, self._rate = rows, purpose, level, rate
        self._settings = rows.cassandra.model_copy(update={"write_consistency": level, "read_consistency": level})
        self.journal = Journal()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Asker":
        self._session = connect(self._settings, self.purpose)
        self._statement = self._session.prepare(INSERT if self.purpose == "write" else SELECT)
        self._statement.is_idempotent = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        close(self._session)

    @property
    def name(self) -> str:
        """``write at ONE`` and the like."""
        return f"{self.purpose} at {self.level}"

    def key(self, number: int) -> str:
        """Return the key of a numbered write."""
        return self._rows.key(f"{self.level}-{number}")

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._stopped.wait(0.005):
            due = int((time.monotonic() - begun) * self._rate)
            while number < due:
                self._ask(number)
                number += 1
        deadline = time.monotonic() + 15
        while len(self.journal.acknowledged) + len(self.journal.refused) < number and time.monotonic() < deadline:
            time.sleep(0.05)

    def _ask(self, number: int) -> None:
        journal = self.journal
        journal.sent[number] = time.monotonic()
        values = (self.key(number), number, number + 1) if self.purpose == "write" else (self._rows.key(number % KEYS),)

        def answered(_: object) -> None:
            journal.acknowledged[number] = time.monotonic()

        def refused(error: Exception) -> None:
            journal.refused[number] = (time.monotonic(), type(error).__name__)

        try:
            self._session.execute_async(self._statement, values, timeout=TIMEOUT_SECONDS).add_callbacks(
                answered, refused
            )
        except Exception as e:
            refused(e)


def during(askers: Sequence[Asker], begin: float, end: float) -> dict[str, dict[str, object]]:
    """Return what each asker saw of the requests of a time."""
    seen: dict[str, dict[str, object]] = {}
    for a in askers:
        j = a.journal
        asked = [n for n, at in j.sent.copy().items() if begin <= at < end]
        errors: dict[str, int] = {}
        for n in asked:
            if n in j.refused:
                errors[j.refused[n][1]] = errors.get(j.refused[n][1], 0) + 1
        waits = sorted(j.acknowledged[n] - j.sent[n] for n in asked if n in j.acknowledged)
        seen[a.name] = {
            "asked": len(asked),
            "answered": len(waits),
            "errors": errors,
            "longest_gap": round(j.longest_gap(begin, end), 3),
            "longest_wait": round(waits[-1], 3) if waits else None,
        }
    return seen
