"""An audit: the books against the log, and the rows against the oracle."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluvial.cassandra import connected
from fluvial.cluster.progress import Report, Step
from fluvial.errors import AuditError
from fluvial.oracle.comparing import Circumstances
from fluvial.oracle.recompute import Span
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Pipeline
from fluvial.services import audit_rows
from fluvial.services.audit_ledger import AuditedLine, LogAccount, against_recomputed, judge
from fluvial.services.audit_log import Aside, LogReader
from fluvial.services.audit_recompute import Asked, Recomputed, SourceRecompute
from fluvial.services.audit_rows import AuditedRows
from fluvial.services.audit_tables import Table, View, views
from fluvial.services.ledger import LedgerLine, read_ledger
from fluvial.services.meter import Meter
from fluvial.services.partitions import partition_counts
from fluvial.services.progress import GroupProgress, Position
from fluvial.services.replay_records import ReplayError, ReplayRecord, ReplayRecords
from fluvial.settings import Settings
from fluvial.stream_apps.plan import DEAD_LETTER_SUFFIX, TopicPlan, chosen, plan_topics

POLL_SECONDS = 0.3
# Rows on their way are kept in memory.
MOST_BEHIND = 1_000_000


@dataclass(frozen=True, slots=True)
class RowsAsked:
    """How rows are compared: which, read how, how many differences are told, and how long the sink is waited for."""

    which: Asked = field(default_factory=Asked)
    consistency: str = "LOCAL_QUORUM"
    replicas: bool = False
    limit: int = 20
    wait_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found; ``recomputed`` has the oracle's quarrels with the books, by pipeline and partition."""

    lines: tuple[AuditedLine, ...]
    tables: tuple[AuditedRows, ...] = ()
    recomputed: Mapping[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that should not be."""
        books = any(line.problems for line in self.lines) or any(self.recomputed.values())
        return not books and not any(t.problems for t in self.tables)


class Auditor:
    """Audits some pipelines of a deployment. Blocking."""

    def __init__(self, settings: Settings, catalog: Catalog, names: Sequence[str], report: Report) -> None:
        """Choose pipelines: those named, or all that the settings run.

        Raises:
            PipelineError: an unknown name.
        """
        self._settings = settings
        self._catalog = catalog
        self._report = report
        by_name = {p.name: p for p in chosen(catalog.pipelines, ",".join(names) or settings.worker.pipelines)}
        self._pipelines = [by_name[n] for n in dict.fromkeys(names)] if names else list(by_name.values())
        self._plans: dict[str, TopicPlan] = plan_topics(by_name.values())
        self._topics = list(dict.fromkeys(p.source for p in self._pipelines))
        self._progress = GroupProgress(settings.kafka)
        self._log = LogReader(settings)

    def audit(self, rows: RowsAsked | None) -> Audit:
        """Hold the books against the log, and with ``rows`` the tables against the oracle.

        Raises:
            FluvialError: something that was asked does not answer, or there is nothing to audit yet.
        """
        if rows is None:
            ledger, positions = self._ledger(), self._sources()
            return Audit(tuple(self._judged(ledger, positions, self._counted(ledger, positions))))
        cassandra = self._settings.cassandra
        with connected(cassandra, "read", keyspace=cassandra.keyspace) as session:
            # A node that is away should be known before the long part.
            looked_at = views(session, cassandra, consistency=rows.consistency, replicas=rows.replicas)
            ledger, positions = self._ledger(), self._sources()
            behind = self._settled(rows.wait_seconds)
            replays = {p.name: self._replays(session, p) for p in self._pipelines}
            recomputed = self._recomputed(ledger, positions, rows.which, replays)
            tables = tuple(self._tables(session, looked_at, ledger, recomputed, behind, replays, rows))
        present = {(p.source, part.partition): part.result.ledger.records for p, r in recomputed for part in r.parts}
        lines = tuple(self._judged(ledger, positions, present))
        return Audit(lines, tables, dict(self._quarrels(ledger, recomputed)))

    def _sources(self) -> dict[tuple[str, int], Position]:
        return {(p.topic, p.partition): p for p in self._positions(self._topics)}

    def _ledger(self) -> dict[tuple[str, int, str], LedgerLine]:
        names = ",".join(p.name for p in self._pipelines)
        worker = self._settings.worker.model_copy(update={"pipelines": names})
        lines = read_ledger(self._settings.model_copy(update={"worker": worker}), self._catalog)
        asked = {p.name for p in self._pipelines}
        found = {(line.topic, line.partition, line.pipeline): line for line in lines if line.pipeline in asked}
        if not found:
            raise AuditError(
                f"group {worker.group} has no checkpoint of {names} in generation {worker.generation} yet",
                hint="run `fluvial worker` or `fluvial run`; a worker writes one every few seconds",
            )
        return found

    def _positions(self, topics: Iterable[str], group: str | None = None) -> list[Position]:
        return self._progress.positions(group or self._settings.worker.group, topics)

    def _counted(
        self, ledger: Mapping[tuple[str, int, str], LedgerLine], positions: Mapping[tuple[str, int], Position]
    ) -> dict[tuple[str, int], int]:
        covered = {(topic, partition): line.covered for (topic, partition, _), line in ledger.items()}
        total = sum(max(covered[at] - positions[at].begin, 0) for at in covered)
        meter = Meter(self._report, "log", "offsets", total)
        present = {
            at: self._log.count(*at, positions[at].begin, min(until, positions[at].end), meter)
            for at, until in covered.items()
        }
        meter.finish()
        return present

    def _judged(
        self,
        ledger: Mapping[tuple[str, int, str], LedgerLine],
        positions: Mapping[tuple[str, int], Position],
        present: Mapping[tuple[str, int], int],
    ) -> list[AuditedLine]:
        late, dead = self._asides()
        lines = []
        for p in self._pipelines:
            for (topic, partition), position in positions.items():
                if topic != p.source:
                    continue
                line = ledger.get((topic, partition, p.name))
                covered = line.covered if line else position.begin
                account = LogAccount(position.begin, position.end, covered, present.get((topic, partition), 0))
                lines.append(
                    judge(
                        (topic, partition, p.name),
                        line,
                        account,
                        late[topic].kept(p.name, partition, covered),
                        dead[topic].kept(topic, partition, covered, shared=self._settings.worker.generation > 0),
                    )
                )
        return lines

    def _asides(self) -> tuple[dict[str, Aside], dict[str, Aside]]:
        generation = self._settings.worker.generation
        of_late = {t: self._positions([self._plans[t].late_topic]) for t in self._topics}
        of_dead = {t: self._positions([self._plans[t].dead_letter_topic]) for t in self._topics}
        total = sum(p.end - p.begin for found in (*of_late.values(), *of_dead.values()) for p in found)
        meter = Meter(self._report, "set aside", "records", total)
        late = {t: self._log.late(self._plans[t].late_topic, of_late[t], generation, meter) for t in self._topics}
        dead = {t: self._log.dead_letters(self._plans[t].dead_letter_topic, of_dead[t], meter) for t in self._topics}
        meter.finish()
        return late, dead

    def _settled(self, wait_seconds: float) -> dict[str, list[Position]]:
        """Wait until the sink has what the result topics hold now; return, by topic, where it does not."""
        topics = [p.result_topic for p in self._pipelines]
        ends = {(p.topic, p.partition): p.end for p in self._positions(topics, self._settings.sink.group)}
        deadline = time.monotonic() + wait_seconds
        while True:
            now = self._positions(topics, self._settings.sink.group)
            behind = [
                Position(p.topic, p.partition, p.committed, p.begin, ends[p.topic, p.partition])
                for p in now
                if max(p.committed, p.begin) < ends.get((p.topic, p.partition), 0)
            ]
            rows = sum(p.lag for p in behind)
            if not behind or time.monotonic() >= deadline:
                break
            self._report(Step("sink", f"{rows:,} rows behind: waiting for it"))
            time.sleep(POLL_SECONDS)
        if rows > MOST_BEHIND:
            raise AuditError(
                f"the sink is {rows:,} rows behind the result topics", hint="let it catch up, or --wait for it longer"
            )
        self._report(Step("sink", f"ready: {f'{rows:,} rows are on their way' if rows else 'has written everything'}"))
        return {t: [p for p in behind if p.topic == t] for t in topics}

    def _replays(self, session: Any, pipeline: Pipeline) -> list[ReplayRecord]:
        """Return the replays whose rows hide the worker's."""
        try:
            records = ReplayRecords(session, self._settings.cassandra.keyspace).of(pipeline.name)
        except ReplayError:
            return []  # a keyspace without the table: there was none
        return [r for r in records if r.generation > self._settings.worker.generation]

    def _recomputed(
        self,
        ledger: Mapping[tuple[str, int, str], LedgerLine],
        positions: Mapping[tuple[str, int], Position],
        asked: Asked,
        replays: Mapping[str, Sequence[ReplayRecord]],
    ) -> list[tuple[Pipeline, Recomputed]]:
        worker = self._settings.worker
        covered = {(topic, partition): line.covered for (topic, partition, _), line in ledger.items()}
        total = sum(max(covered[at] - positions[at].begin, 0) for at in covered)
        meter = Meter(self._report, "recompute", "records", total)
        found: dict[str, Recomputed] = {}
        for topic in self._topics:
            upstream = self._plans[topic].upstream
            source = SourceRecompute(
                topic,
                self._catalog.schema_of(topic),
                [p for p in self._pipelines if p.source == topic],
                partition_counts(self._settings.kafka, {upstream})[upstream] if upstream else 0,
                int(worker.max_ahead_seconds * 1000),
                worker.generation,
                asked,
                {name: [_span(r) for r in some if r.lateness == "unlimited"] for name, some in replays.items()},
                [p for p in chosen(self._catalog.pipelines, worker.pipelines) if p.source == topic],
            )
            for (name, partition), until in sorted(covered.items()):
                if name == topic:
                    source.read(self._log, partition, positions[name, partition].begin, until, meter)
            found |= {r.pipeline.name: r for r in source.recomputed()}
        meter.finish()
        return [(p, found[p.name]) for p in self._pipelines]

    def _quarrels(
        self, ledger: Mapping[tuple[str, int, str], LedgerLine], recomputed: list[tuple[Pipeline, Recomputed]]
    ) -> Iterable[tuple[tuple[str, int], tuple[str, ...]]]:
        for (_, partition, name), line in ledger.items():
            found = next(r for p, r in recomputed if p.name == name)
            account = audit_rows.recomputed_ledger(found, partition)
            if account is not None and (quarrels := against_recomputed(line, account)):
                yield (name, partition), tuple(quarrels)

    def _tables(
        self,
        session: Any,
        looked_at: Sequence[View],
        ledger: Mapping[tuple[str, int, str], LedgerLine],
        recomputed: list[tuple[Pipeline, Recomputed]],
        behind: Mapping[str, list[Position]],
        replays: Mapping[str, Sequence[ReplayRecord]],
        rows: RowsAsked,
    ) -> Iterable[AuditedRows]:
        for p, found in recomputed:
            schema = audit_rows.identity_schema(p, self._catalog.schema_of(p.result_topic))
            dead = self._positions([p.result_topic + DEAD_LETTER_SUFFIX])
            circumstances = Circumstances(
                self._settings.worker.generation,
                {part: line.covered for (_, part, name), line in ledger.items() if name == p.name},
                time.time_ns() // 1_000_000,
                found.whole_from,
                audit_rows.on_their_way(self._log, p, schema, behind[p.result_topic]),
                audit_rows.set_aside(self._log, p, schema, dead),
                {r.generation: r.lateness for r in replays[p.name] if not r.across_partitions},
            )
            for view in looked_at:
                meter = Meter(self._report, p.name, f"rows read at {view.name}", 0)
                table = Table(session, self._settings.cassandra.keyspace, p, view)
                yield audit_rows.compare(table, view, rows.which, found, circumstances, rows.limit, meter)
                meter.finish()


def _span(replay: ReplayRecord) -> Span:
    return Span(*(round(at.timestamp() * 1000) for at in (replay.range_begin, replay.range_end)))
