"""The table ``replays``: which generations replays have taken, and how far each came."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from cassandra import ConsistencyLevel, DriverException, InvalidRequest
from cassandra.cluster import NoHostAvailable
from cassandra.query import SimpleStatement

from fluvial.errors import FluvialError

READING, WRITING, DONE, REFUSED = "reading", "writing", "done", "refused"


class ReplayError(FluvialError):
    """A replay cannot be done as it was asked for."""


@dataclass(frozen=True, slots=True)
class ReplayRecord:
    """One run. ``starts`` and ``ends`` are the stretch of each partition of the source that its rows are made of.

    ``lateness`` is "declared", "unlimited" or milliseconds; ``finished`` are the partitions whose rows are written.
    """

    pipeline: str
    generation: int
    status: str
    origin: str
    destination: str
    range_begin: datetime
    range_end: datetime
    lateness: str
    across_partitions: bool
    starts: Mapping[int, int]
    ends: Mapping[int, int]
    worker_generation: int
    fingerprint: str
    finished: frozenset[int]
    changed: int
    added: int
    unchanged: int
    started_at: datetime
    updated_at: datetime

    @property
    def into_result_topic(self) -> bool:
        """Whether its rows are in the pipeline's table, rather than in a side table."""
        return self.destination == f"fluvial.{self.pipeline}"


_COLUMNS = tuple(f.name for f in fields(ReplayRecord))


class ReplayRecords:
    """Reads and writes the table through a session of its own keyspace. Blocking."""

    def __init__(self, session: Any, keyspace: str) -> None:
        self._session = session
        self._table = f"{keyspace}.replays"

    def of(self, pipeline: str) -> list[ReplayRecord]:
        """Return a pipeline's replays, the newest first.

        Raises:
            ReplayError: the table does not exist, or Cassandra does not answer.
        """
        query = f"SELECT {', '.join(_COLUMNS)} FROM {self._table} WHERE pipeline = %s"  # noqa: S608 — own names
        return [_record(row) for row in self._run(query, (pipeline,))]

    def allocate(self, record: ReplayRecord) -> ReplayRecord:
        """Store a new run under the next generation: above the worker's and above every replay's of the pipeline."""
        taken = [r.generation for r in self.of(record.pipeline)]
        generation = max([record.worker_generation, *taken]) + 1
        marks = ", ".join("%s" for _ in _COLUMNS)
        query = f"INSERT INTO {self._table} ({', '.join(_COLUMNS)}) VALUES ({marks}) IF NOT EXISTS"  # noqa: S608
        while True:
            new = replace(record, generation=generation)
            if self._run(query, _values(new)).one()[0]:
                return new
            generation += 1

    def update(self, record: ReplayRecord) -> ReplayRecord:
        """Store a run's status, finished partitions and counts."""
        new = replace(record, updated_at=datetime.now(UTC))
        query = (
            f"UPDATE {self._table} SET status = %s, finished = %s, changed = %s, added = %s, unchanged = %s, "  # noqa: S608
            "updated_at = %s WHERE pipeline = %s AND generation = %s IF EXISTS"
        )
        values = (new.status, set(new.finished), new.changed, new.added, new.unchanged, new.updated_at)
        self._run(query, (*values, new.pipeline, new.generation))
        return new

    def _run(self, query: str, values: tuple[Any, ...]) -> Any:
        statement = SimpleStatement(query, serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL)
        try:
            return self._session.execute(statement, values)
        except InvalidRequest as e:
            raise ReplayError(
                f"{self._table}: {e}", hint="run `fluvial init`: it creates the table of replays"
            ) from None
        except (DriverException, NoHostAvailable) as e:
            raise ReplayError(
                f"Cassandra does not answer about {self._table}: {type(e).__name__}: {e}", hint="`fluvial status`"
            ) from None


def _record(row: Any) -> ReplayRecord:
    held = dict(zip(_COLUMNS, row, strict=True))
    for name in ("range_begin", "range_end", "started_at", "updated_at"):
        held[name] = held[name].replace(tzinfo=UTC)
    for name in ("starts", "ends"):
        held[name] = dict(held[name] or {})
    held["finished"] = frozenset(held["finished"] or ())
    return ReplayRecord(**held)


def _values(record: ReplayRecord) -> tuple[Any, ...]:
    plain = {name: getattr(record, name) for name in _COLUMNS}
    plain |= {"starts": dict(record.starts), "ends": dict(record.ends), "finished": set(record.finished)}
    return tuple(plain[name] for name in _COLUMNS)
