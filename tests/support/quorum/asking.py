"""Numbered writes and reads at a consistency level and a rate, with the same journal as the producer's."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, WhiteListRoundRobinPolicy

from fluvial.cassandra import PROTOCOL_VERSION, close, connect, connected
from fluvial.settings import CassandraSettings, Consistency
from support.quorum.producing import Journal

KEYS = 1000
TIMEOUT_SECONDS = 2.0


def create_table(cassandra: CassandraSettings, replicas: int = 3) -> CassandraSettings:
    """Create keyspace ``trial`` anew, and in it a table with `KEYS` rows to read; return settings that lead there."""
    patient = cassandra.model_copy(update={"request_timeout_seconds": 60.0, "write_consistency": "ALL"})
    with connected(patient, "write") as session:
        session.execute("DROP KEYSPACE IF EXISTS trial")
        session.execute(
            "CREATE KEYSPACE trial WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}"
        )
        session.execute("CREATE TABLE trial.rows (key text PRIMARY KEY, value bigint)")
    found = cassandra.model_copy(update={"keyspace": "trial", "request_timeout_seconds": TIMEOUT_SECONDS})
    write_rows(found, "ALL", range(KEYS), 0)
    return found


def write_rows(cassandra: CassandraSettings, level: Consistency, keys: Sequence[int], value: int) -> int:
    """Write ``value`` to each of the keys, with the value as the timestamp; return how many were acknowledged."""
    settings = cassandra.model_copy(update={"write_consistency": level})
    acknowledged = 0
    with connected(settings, "write", keyspace="trial") as session:
        statement = session.prepare("INSERT INTO rows (key, value) VALUES (?, ?) USING TIMESTAMP ?")
        for a in range(0, len(keys), 100):
            futures = [session.execute_async(statement, (f"r{k}", value, value + 1)) for k in keys[a : a + 100]]
            for future in futures:
                future.result()
                acknowledged += 1
    return acknowledged


class Asker:
    """Writes new rows (``purpose`` "write") or reads old ones at ``level`` until stopped; a context manager.

    Nothing is tried again, so that the journal tells what a single request sees; the session is fluvial's own.
    """

    def __init__(self, cassandra: CassandraSettings, purpose: Any, level: Consistency, *, rate: float = 100.0) -> None:
        self.purpose, self.level, self._rate = purpose, level, rate
        self._settings = cassandra.model_copy(update={"write_consistency": level, "read_consistency": level})
        self.journal = Journal()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Asker":
        self._session = connect(self._settings, self.purpose, keyspace="trial")
        if self.purpose == "write":
            self._statement = self._session.prepare("INSERT INTO rows (key, value) VALUES (?, ?) USING TIMESTAMP ?")
        else:
            self._statement = self._session.prepare("SELECT value FROM rows WHERE key = ?")
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
        return f"{self.level}-{number}"

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
        values = (self.key(number), number, number + 1) if self.purpose == "write" else (f"r{number % KEYS}",)

        def answered(_: object) -> None:
            journal.acknowledged[number] = time.monotonic()

        def refused(error: Exception) -> None:
            journal.refused[number] = (time.monotonic(), type(error).__name__)

        try:
            self._session.execute_async(self._statement, values).add_callbacks(answered, refused)
        except Exception as e:
            refused(e)


def missing_rows(cassandra: CassandraSettings, level: Consistency, asker: Asker) -> int:
    """Count acknowledged writes that a reader at ``level`` does not find."""
    settings = cassandra.model_copy(update={"read_consistency": level, "request_timeout_seconds": 20.0})
    with connected(settings, "read", keyspace="trial") as session:
        statement = session.prepare("SELECT value FROM rows WHERE key = ?")
        return _count(
            session, statement, [asker.key(n) for n in asker.journal.acknowledged], lambda found: found is None
        )


def older_at(cassandra: CassandraSettings, host: str, level: str, keys: Sequence[int], value: int) -> int:
    """Count rows that a reader whose coordinator is ``host`` sees with an older value."""
    profile = ExecutionProfile(
        WhiteListRoundRobinPolicy([host]),
        FallthroughRetryPolicy(),
        ConsistencyLevel.name_to_value[level],
        request_timeout=10.0,
    )
    cluster = Cluster(
        [host], cassandra.port, protocol_version=PROTOCOL_VERSION, execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    )
    try:
        session = cluster.connect("trial")
        statement = session.prepare("SELECT value FROM rows WHERE key = ?")
        return _count(session, statement, [f"r{k}" for k in keys], lambda found: found is None or found.value < value)
    finally:
        cluster.shutdown()


def _count(session: Any, statement: Any, keys: Sequence[str], wrong: Any) -> int:
    n = 0
    for a in range(0, len(keys), 100):
        for future in [session.execute_async(statement, (k,)) for k in keys[a : a + 100]]:
            n += bool(wrong(future.result().one()))
    return n
