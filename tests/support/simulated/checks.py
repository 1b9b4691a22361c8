"""What must hold after a run (I1–I6 of the invariants), by the oracle and the journals: independent of the product."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fluvial.oracle.comparing import bits
from fluvial.oracle.from_cassandra import WRITETIME, as_table, identity
from fluvial.oracle.from_kafka import decode
from fluvial.oracle.oracle import run
from fluvial.oracle.records import OracleResult, Record
from fluvial.schemas.declarations import Pipeline, Session
from support.simulated import product
from support.simulated.cassandra import CellsOfRow
from support.simulated.declared import RETENTION_DAYS, SOURCE, Deployment, python_value
from support.simulated.kafka import BASE_MS, Stored
from support.simulated.plan import DAY_MS, PARTITIONS
from support.simulated.world import Views, World

#: How far a row's expiry may be from its instant: the time to live is in whole seconds, starts when the row is written,
#: and was computed when its batch was prepared: an outage in between delays the expiry by as much.
EXPIRY_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong, and which invariant says so."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def violations(world: World) -> list[Violation]:
    """Return everything that is wrong with a finished run."""
    if world.stuck is not None:
        why = (world.stuck, *world.unexpected, *world.loop.crashes)
        return [Violation("I6", u) for u in why]
    return list(Checks(world).all())


class Checks:
    """The checks of one finished run."""

    def __init__(self, world: World) -> None:
        """Ask the oracle."""
        self.world = world
        self.newest = world.generation
        self.logs = {
            (topic, p): [_record(world.deployment, r) for r in world.kafka.topics[topic][p].records]
            for topic in world.deployment.plans
            for p in range(PARTITIONS)
        }
        self.oracle = {
            (pipeline.name, p, generation): self._ask(pipeline, p, generation, declared)
            for generation, declared in self._generations()
            for pipeline in declared.pipelines
            for p in range(PARTITIONS)
        }

    def all(self) -> Iterator[Violation]:
        yield from (Violation("I6", u) for u in (*self.world.unexpected, *self.world.loop.crashes))
        yield from self.acknowledged()
        yield from self.order()
        yield from self.rekeyed()
        yield from self.published()
        yield from self.set_aside()
        yield from self.ledgers()
        yield from self.tables()
        yield from (Violation("I3", w) for w in self.world.watch.went_back)

    def _generations(self) -> Iterator[tuple[int, Deployment]]:
        yield 0, self.world.deployment
        if self.newest:
            yield 1, self.world.corrected

    def _ask(
        self, pipeline: Pipeline, p: int, generation: int, declared: Deployment, below: int | None = None
    ) -> OracleResult:
        records = self.logs[pipeline.source, p]
        return run(
            pipeline,
            records if below is None else [r for r in records if r.offset < below],
            upstream_partitions=PARTITIONS if declared.plans[pipeline.source].upstream else 0,
            generation=generation,
            partition=p,
        )

    # --- I1, I5: what was acknowledged is in the log, in order

    def acknowledged(self) -> Iterator[Violation]:
        """Every sending that a gateway acknowledged is in the log."""
        values = {r.value for log in self.world.kafka.topics[SOURCE] for r in log.records}
        for s in self.world.senders.journal:
            if (s.garbage or self.world.senders.encoded(s)) not in values:
                yield Violation("I1", f"{s} was acknowledged and is not in the log")

    def order(self) -> Iterator[Violation]:
        """The first copies of a device's numbered events are in the order of their numbers."""
        for p in range(PARTITIONS):
            last: dict[str, int] = {}
            for r in self.logs[SOURCE, p]:
                if r.event is not None and r.event["sequence"] is not None:
                    device, n = r.event["device"], r.event["sequence"]
                    if n > last.get(device, 0) + 1 and self._numbered(device, last.get(device, 0), n):
                        yield Violation("I5", f"{device}: {n} after {last.get(device)} in {SOURCE}[{p}]@{r.offset}")
                    last[device] = max(n, last.get(device, 0))

    def _numbered(self, device: str, after: int, before: int) -> bool:
        return any(
            s.device == device and s.garbage is None and s.sequence is not None and after < s.sequence < before
            for s in self.world.plan.sendings
        )

    def rekeyed(self) -> Iterator[Violation]:
        """A rekeyed topic has every item of every valid event, the first copies of a partition's in its order."""
        for plan in self.world.deployment.plans.values():
            for rekey in plan.rekeys:
                copies = [(r, q) for q in range(PARTITIONS) for r in self.logs[rekey.topic, q] if r.event is not None]
                found = {_origin(r) for r, _ in copies}
                wanted = set()
                for p in range(PARTITIONS):
                    for r in self.logs[plan.topic, p]:
                        if r.event is not None and r.event["event_time"] <= r.timestamp + 300_000:
                            items = list(dict.fromkeys(r.event[rekey.explode]))
                            wanted |= {(p, r.offset, i, item) for i, item in enumerate(items)}
                for missing in sorted(wanted - found):
                    yield Violation("I1", f"{rekey.topic} lacks {missing} (partition, offset, index, item)")
                for extra in sorted(found - wanted):
                    yield Violation("I1", f"{rekey.topic} has {extra}, which no event made")
                if not self.world.plan.weather.delivery_lost:
                    yield from self._rekeyed_order(rekey.topic, copies)

    def _rekeyed_order(self, topic: str, copies: list[tuple[Record, int]]) -> Iterator[Violation]:
        seen: set[tuple[int, ...]] = set()
        newest: dict[tuple[int, int], int] = {}
        for r, q in copies:
            p, offset, index, _ = _origin(r)
            if (q, p, offset, index) not in seen and offset < newest.get((q, p), -1):
                yield Violation("I5", f"{topic}[{q}]@{r.offset}: first copy of {_origin(r)} comes after later ones")
            seen.add((q, p, offset, index))
            newest[q, p] = max(offset, newest.get((q, p), -1))

    # --- I1, I4: every row, late event and dead letter, each once or again the same

    def published(self) -> Iterator[Violation]:
        """Every published row is one that the oracle knows, to the bit; no final row is missing."""
        for pipeline in self.world.deployment.pipelines:
            known: dict[Any, Any] = {}
            final: dict[Any, str] = {}
            for (name, p, generation), result in self.oracle.items():
                if name == pipeline.name:
                    for row in result.rows:
                        at = _version(pipeline, row)
                        known[at] = {k: bits(v) for k, v in row.items()}
                        if row["final"] and generation == self.newest:
                            final[at] = f"{pipeline.name}[{p}]"
            for log in self.world.kafka.topics[pipeline.result_topic]:
                for stored in log.records:
                    row = dict(_record(self.world.deployment, stored).event or {})
                    at = _version(pipeline, row)
                    final.pop(at, None)
                    wanted = known.get(at)
                    if wanted is None:
                        yield Violation("I1", f"{pipeline.result_topic}: a row that no prefix of the log gives: {row}")
                    elif wanted != {k: bits(v) for k, v in row.items()}:
                        wrong = [k for k, v in row.items() if bits(v) != wanted[k]]
                        yield Violation("I1", f"{pipeline.result_topic}: {wrong} of {row} differ from the oracle's")
            for at, where in final.items():
                yield Violation("I1", f"{where}: no final row {at} was published")

    def set_aside(self) -> Iterator[Violation]:
        """Late and dead-letter topics have what the oracle set aside, by source, and nothing else."""
        kafka = self.world.kafka
        for topic, plan in self.world.deployment.plans.items():
            found = set()
            for log in kafka.topics[plan.late_topic]:
                for r in log.records:
                    e = _record(self.world.deployment, r).event or {}
                    found.add(
                        (e["pipeline"], e["generation"], e["source_partition"], e["source_offset"], e["late_by_ms"])
                    )
            wanted, known = set(), set()
            for (name, p, generation), result in self.oracle.items():
                if any(x.name == name for x in plan.pipelines):
                    late = {(name, generation, p, x.offset, x.late_by_ms) for x in result.late}
                    known |= late
                    wanted |= late if generation == self.newest else set()
            yield from (Violation("I4", f"{topic}: late {x} is not in the late topic") for x in sorted(wanted - found))
            yield from (Violation("I4", f"{topic}: {x} is not late") for x in sorted(found - known))
            dead = {}
            for log in kafka.topics[plan.dead_letter_topic]:
                for r in log.records:
                    e = _record(self.world.deployment, r).event or {}
                    dead[e["partition"], e["offset"]] = e["payload"]
            bad = {
                (p, d.offset)
                for (n, p, g), o in self.oracle.items()
                for d in o.dead
                if n in {x.name for x in plan.pipelines}
            }
            if not plan.pipelines:
                bad = {
                    (p, r.offset)
                    for p in range(PARTITIONS)
                    for r in self.logs[topic, p]
                    if r.kind == "bad" or _ahead(r)
                }
            yield from (Violation("I4", f"{topic}: {x} has no dead letter") for x in sorted(bad - set(dead)))
            yield from (Violation("I4", f"{topic}: {x} is not bad") for x in sorted(set(dead) - bad))
            payloads = {(p, r.offset): r.value for p, log in enumerate(kafka.topics[topic]) for r in log.records}
            yield from (
                Violation("I4", f"{topic}: {x}: another payload")
                for x in sorted(bad)
                if x in dead and dead[x] != payloads[x]
            )

    def ledgers(self) -> Iterator[Violation]:
        """Every checkpoint's ledger is the oracle's for what it covers (of two that are there per partition)."""
        for place, covers, ledger in product.ledgers(self.world):
            declared = self.world.corrected if place.generation else self.world.deployment
            for pipeline in declared.plans[place.topic].pipelines:
                if pipeline.name not in ledger:
                    continue
                expected = self._ask(pipeline, place.partition, place.generation, declared, below=covers).ledger
                wanted = {name: getattr(expected, name, 0) for name in ledger[pipeline.name]}
                if wanted != dict(ledger[pipeline.name]):
                    yield Violation(
                        "I4",
                        f"{place} at {covers}: ledger of {pipeline.name} is {ledger[pipeline.name]}, should be {wanted}",
                    )

    # --- I2: the tables

    def tables(self) -> Iterator[Violation]:
        """At quorum, whoever answers, and on every repaired replica, the rows are the oracle's, and are gone in time."""
        yield from self.views({f"quorum of {names}": view for names, view in self.world.at_quorum.items()})
        yield from self.views({f"repaired {names}": view for names, view in self.world.repaired.items()})

    def views(self, views: Views) -> Iterator[Violation]:
        """Hold what readers see against the oracle; what several see alike is told once."""
        for pipeline in self.world.deployment.pipelines:
            rows = [
                r for (n, _, g), o in self.oracle.items() if n == pipeline.name and g == self.newest for r in o.rows
            ]
            wanted = as_table(pipeline, rows) | self._left_behind(pipeline, as_table(pipeline, rows))
            checked: list[Any] = []
            for where, view in views.items():
                if view[pipeline.name] not in checked:
                    checked.append(view[pipeline.name])
                    yield from self._table(pipeline, wanted, where, view[pipeline.name])

    def _left_behind(self, pipeline: Pipeline, wanted: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """Return the rows of an older generation whose sessions begin elsewhere in the newest: nothing replaces them."""
        if not self.newest or not isinstance(pipeline.window, Session):
            return {}
        published = [
            dict(_record(self.world.deployment, r).event or {})
            for log in self.world.kafka.topics[pipeline.result_topic]
            for r in log.records
        ]
        old = as_table(pipeline, [row for row in published if row["generation"] < self.newest])
        return {i: row for i, row in old.items() if i not in wanted}

    def _table(
        self, pipeline: Pipeline, wanted: Mapping[Any, Any], where: str, held: Mapping[Any, CellsOfRow]
    ) -> Iterator[Violation]:
        kinds = self.world.cassandra.tables[pipeline.name].columns
        found = {}
        for cells in held.values():
            row = {name: python_value(c.value, kinds[name]) for name, c in cells.items()}
            times = {c.written for c in cells.values()}
            if len(times) > 1:
                yield Violation("I2", f"{where}: cells of one row with write timestamps {sorted(times)}: {row}")
            found[identity(pipeline, row)] = row | {WRITETIME: max(times)}
        for i, row in wanted.items():
            left = self._seconds_left(pipeline, row)
            if i not in found:
                if left > EXPIRY_SECONDS:
                    yield Violation("I2", f"{where}: {pipeline.name} lacks {row}")
            elif left < -EXPIRY_SECONDS:
                yield Violation("I2", f"{where}: {pipeline.name} should have forgotten {row} {-left:.0f} s ago")
            elif left > 0:  # a final row that comes later than that is not written any more
                for name, value in row.items():
                    if bits(found[i].get(name)) != bits(value):
                        yield Violation(
                            "I2", f"{where}: {pipeline.name} {i}: {name} is {found[i].get(name)!r}, should be {value!r}"
                        )
        for i in found.keys() - wanted.keys():
            yield Violation("I2", f"{where}: {pipeline.name} has {found[i]}, which the oracle has not")

    def _seconds_left(self, pipeline: Pipeline, row: Mapping[str, Any]) -> float:
        if not pipeline.table.retention_days:
            return float("inf")
        expires = (row["window_end"] + RETENTION_DAYS * DAY_MS - BASE_MS) / 1000
        left = float(expires - self.world.loop.time())
        outage = sum(f.seconds for f in self.world.plan.faults if f.kind in ("node down", "pause", "replace"))
        waiting = self.world.plan.span if self.world.plan.mood.hot else 0.0
        return min(0.0, left + outage + waiting) if left < 0 else left


def _record(deployment: Deployment, stored: Stored) -> Record:
    return decode(
        offset=stored.offset,
        timestamp=stored.timestamp,
        key=stored.key,
        value=stored.value,
        headers=stored.headers,
        schemas=deployment.schemas.__getitem__,
    )


def _origin(record: Record) -> tuple[int, int, int, str]:
    assert record.event is not None
    e = record.event
    return e["upstream_partition"], e["upstream_offset"], e["upstream_index"], e["item"]


def _ahead(record: Record) -> bool:
    return record.event is not None and record.event["event_time"] > record.timestamp + 300_000


def _version(pipeline: Pipeline, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*identity(pipeline, dict(row)), row["generation"], row["source_partition"], row["source_offset"])
