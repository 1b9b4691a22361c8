"""Everything that happens to one partition of one source topic, as a function of its records."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fluvial.errors import CheckpointError
from fluvial.records import I64, Column, EventColumns, Longs, RecordColumns, Spans
from fluvial.schemas.columns import repeated
from fluvial.schemas.dead_letters import DeadLetter, DeadLetterLimit, dead_letters
from fluvial.schemas.declarations import Pipeline, Table
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import Aggregation, StageBatch
from fluvial.stream_apps.plan import TopicPlan, fingerprint
from fluvial.stream_apps.rekeying import EventRekeyer, Rekeyed, ResultRekeyer
from fluvial.stream_apps.snapshots import Room, State
from fluvial.stream_apps.validation import sort_records, take_batch
from fluvial.stream_apps.windows import Late


class Decodes(Protocol):
    """A decoder of a topic's events."""

    def decode(self, records: RecordColumns) -> EventColumns: ...


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a batch of records made; publish all of it before anything past the batch is acknowledged or checkpointed."""

    rows: list[tuple[Pipeline, dict[str, Column]]] = field(default_factory=list)
    late: list[tuple[Spans, dict[str, Column]]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    rekeyed: list[Rekeyed] = field(default_factory=list)
    records: int = 0


@dataclass(slots=True)
class Component:
    """One stateful part of a stage and the offset that it has handled everything below of."""

    name: str
    fingerprint: str
    part: Aggregation | EventRekeyer | ResultRekeyer
    next_offset: int = 0


class PartitionStage:
    """The state of one partition of a source topic. Not thread-safe: one batch after the other."""

    def __init__(
        self,
        plan: TopicPlan,
        partition: int,
        decoder: Decodes,
        *,
        limit: DeadLetterLimit,
        max_ahead_ms: int,
        generation: int = 0,
        upstream_partitions: int = 0,
    ) -> None:
        self.plan = plan
        self.partition = partition
        self._decoder = decoder
        self._limit = limit
        self._max_ahead_ms = max_ahead_ms
        self._generation = generation
        self._upstream_partitions = upstream_partitions
        self.dead_lettered = 0
        self.records = 0
        self.ticks = 0
        self.skipped = 0
        self.rekeyers = [Component(f"rekey:{r.topic}", fingerprint(r), EventRekeyer(r, partition)) for r in plan.rekeys]
        self.aggregations: list[tuple[Component, Aggregation, list[ResultRekeyer]]] = []
        for p in plan.pipelines:
            a = Aggregation(p, partition=partition, generation=generation, upstream_partitions=upstream_partitions)
            forwards = [ResultRekeyer(r, p, partition) for r in plan.forwards.get(p.name, ())]
            # What shapes the state, and no more: a table's retention, say, may change freely.
            shape = replace(p, table=Table("", ()), upstream=())
            mark = fingerprint((shape, upstream_partitions, plan.forwards.get(p.name, ())))
            self.aggregations.append((Component(p.name, mark, a), a, forwards))

    @property
    def components(self) -> list[Component]:
        """Every part that keeps state."""
        return [*self.rekeyers, *(c for c, _, _ in self.aggregations)]

    @property
    def next_offset(self) -> int:
        """The offset to read next: the least that any part still has to see."""
        return min(c.next_offset for c in self.components)

    @property
    def required_offset(self) -> int | None:
        """The least offset that must still be in the log; None when no part has seen any of it."""
        return min((c.next_offset for c in self.components if c.next_offset), default=None)

    @property
    def newest_ms(self) -> int | None:
        """The event time (epoch ms) that the partition has come to; None before the first event or tick."""
        times = [a.windows.partition_time for _, a, _ in self.aggregations]
        return max((t for t in times if t > k.NEG), default=None)

    def skip(self, lost: int, first: int) -> None:
        """Go on at offset ``first``, ``lost`` offsets after the one that was required: a person has chosen that."""
        self.skipped += lost
        for c in self.components:
            c.next_offset = max(c.next_offset, first)

    def process(self, records: RecordColumns) -> StageOutput:
        """Handle the records that follow; parts that have seen some of them already skip those.

        Raises:
            DeadLetterLimitError: too many of them are bad.
        """
        out = StageOutput(records=len(records))
        seen_before = max(c.next_offset for c in self.components)
        if len(records):
            batch, rows, errors = sort_records(
                records, self._decoder.decode(records), self.plan.pipelines,
                event_time=self.plan.event_time, max_ahead_ms=self._max_ahead_ms, upstream_partitions=self._upstream_partitions,
            )  # fmt: skip
            errors = [e for e in errors if records.offset[e.row] >= seen_before]
            self._limit.note(
                records.topic, records.partition, len(records), np.array([e.row for e in errors], np.int64)
            )
            out.dead.extend(dead_letters(records, errors))
            new = records.offset >= seen_before
            self.records += int(new.sum())
            self.ticks += int(((batch.kind != k.EVENT) & (batch.offset >= seen_before)).sum())
            self.dead_lettered += len(errors)
            for c in self.rekeyers:
                assert isinstance(c.part, EventRekeyer)
                out.rekeyed.append(c.part.process(_from(batch, c.next_offset), self.plan.event_time))
            for c, a, forwards in self.aggregations:
                part = _from(batch, c.next_offset)
                made, late = a.process(part)
                if len(made["final"]):
                    out.rows.append((a.pipeline, made))
                for f in forwards:
                    out.rekeyed.append(f.process(made, a.last_keys, a.windows.closed_through))
                if len(late.record):
                    at = rows[len(batch) - len(part) :][late.record]
                    out.late.append((records.key.take(at), self._late(a.pipeline, records, part, late, at)))
        for c in self.components:
            c.next_offset = max(c.next_offset, records.next_offset)
        return out

    def open_rows(self) -> StageOutput:
        """Return early rows of all open windows, for the end of a bounded run."""
        rows = []
        for _, a, _ in self.aggregations:
            if a.windows.open_windows:
                rows.append((a.pipeline, a.open_rows(a.last_offset)))
        return StageOutput(rows=rows)

    def ledger(self) -> dict[str, dict[str, int]]:
        """Return, per pipeline, where every record went: records = ticks + aggregated + duplicates + late + dead-lettered.

        ``skipped`` are offsets that were deleted from the log before they were read; they are not among the records.
        """
        return {
            a.pipeline.name: {
                "records": self.records,
                **a.windows.counts,
                "dead_lettered": self.dead_lettered,
                "skipped": self.skipped,
            }
            for _, a, _ in self.aggregations
        }

    def room(self) -> Room:
        """Return room for a snapshot; it may be asked for while records are handled."""
        return Room(int(1.05 * sum(a.state_bytes() for _, a, _ in self.aggregations)) + (1 << 20))

    def state(self, room: Room | None = None) -> dict[str, Any]:
        """Return a snapshot, made in ``room``: plain values, and arrays by component under ``"components"``."""
        parts: dict[str, Any] = {}
        for c in self.rekeyers:
            parts[c.name] = _snapshot(c, dict(c.part.state()))
        for c, a, forwards in self.aggregations:
            arrays = a.state(room)
            for i, f in enumerate(forwards):
                arrays |= {f"forward{i}.{name}": v for name, v in f.state().items()}
            parts[c.name] = _snapshot(c, arrays)
        return {
            "topic": self.plan.topic, "partition": self.partition, "generation": self._generation, "records": self.records,
            "ticks": self.ticks, "dead_lettered": self.dead_lettered, "skipped": self.skipped,
            "ledger": self.ledger(), "components": parts,
        }  # fmt: skip

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Take up a snapshot (arrays whole); return the names of the parts that it lacks: those start empty, at offset 0.

        Raises:
            CheckpointError: the snapshot is of another partition or generation, or a part is declared otherwise now.
        """
        mine = (self.plan.topic, self.partition, self._generation)
        theirs = (snapshot["topic"], snapshot["partition"], snapshot["generation"])
        if mine != theirs:
            raise CheckpointError(
                f"a checkpoint of {theirs} is not one of {mine}", hint="use the worker's own checkpoints"
            )
        self.records, self.ticks, self.dead_lettered = (int(snapshot[f]) for f in ("records", "ticks", "dead_lettered"))
        self.skipped = int(snapshot.get("skipped", 0))
        missing = []
        forwards_of = {c.name: forwards for c, _, forwards in self.aggregations}
        for c in self.components:
            kept = snapshot["components"].get(c.name)
            if kept is None:
                missing.append(c.name)
                continue
            if kept["fingerprint"] != c.fingerprint:
                # Its rows would have other values under the write timestamps of those that are there.
                raise CheckpointError(
                    f"{c.name} is declared otherwise than when {self.plan.topic}[{self.partition}] was last worked on",
                    hint=f"raise worker.generation above {self._generation}: the log is read anew and the new rows win",
                )
            c.part.restore(kept["arrays"])
            for i, f in enumerate(forwards_of.get(c.name, ())):
                f.restore(
                    {
                        n.removeprefix(f"forward{i}."): v
                        for n, v in kept["arrays"].items()
                        if n.startswith(f"forward{i}.")
                    }
                )
            c.next_offset = int(kept["next_offset"])
        return missing

    def _late(self, p: Pipeline, records: RecordColumns, batch: StageBatch, late: Late, at: I64) -> dict[str, Column]:
        n = len(at)
        every = np.ones(n, np.bool_)

        def longs(values: NDArray[Any] | int) -> Longs:
            return Longs(np.broadcast_to(np.asarray(values, np.int64), (n,)).copy(), every)

        time = batch.events.columns[p.event_time]
        assert isinstance(time, Longs)
        return {
            "pipeline": repeated(p.name, n), "key": records.key.take(at), "source_topic": repeated(records.topic, n),
            "source_partition": longs(self.partition), "source_offset": longs(records.offset[at]),
            "event_time": longs(time.values[late.record]), "late_by_ms": longs(late.late_by_ms),
            "closed_through": longs(late.closed_through), "generation": longs(self._generation),
            "payload": records.value.take(at),
        }  # fmt: skip


def _from(batch: StageBatch, offset: int) -> StageBatch:
    if not len(batch) or batch.offset[0] >= offset:
        return batch
    return take_batch(batch, np.arange(int(np.searchsorted(batch.offset, offset)), len(batch)))


def _snapshot(c: Component, arrays: State) -> dict[str, Any]:
    return {"fingerprint": c.fingerprint, "next_offset": c.next_offset, "arrays": arrays}
