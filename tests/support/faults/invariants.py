"""What must hold when a trial is over: the log, the tables and the books against the journal and the oracle."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from fluvial.oracle.from_cassandra import compare, read_table
from fluvial.oracle.from_kafka import ask_oracle, partitions_of, read_partition, registry
from fluvial.oracle.records import OracleResult
from fluvial.schemas.avro import load_schema, read_datum
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Pipeline
from fluvial.services.ledger import read_ledger
from fluvial.settings import KafkaSettings, Settings
from fluvial.stream_apps.plan import plan_topics
from fluvial.transport.publisher import OutRecord
from support.faults.feeder import Journal

SHOWN = 5
FATES = ("records", "ticks", "aggregated", "duplicates", "late", "dead_lettered")

# The oracle's, by pipeline and partition.
Answers = Mapping[str, Mapping[int, OracleResult]]


@dataclass(frozen=True)
class Message:
    """One record of a topic as it lies in the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def read_topic(kafka: KafkaSettings, topic: str) -> list[Message]:
    """Return everything in a topic, each partition in the order of its offsets."""
    config = {
        "bootstrap.servers": kafka.brokers, "group.id": "faults", "enable.auto.commit": False, "enable.partition.eof": True,
        "check.crcs": True, "fetch.wait.max.ms": 20,
    }  # fmt: skip
    consumer = Consumer(config)
    found: list[Message] = []
    try:
        left = set(partitions_of(kafka.brokers, topic))
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
        while left:
            for m in consumer.consume(1_000, timeout=0.1):
                error = m.error()
                if error is None:
                    found.append(Message(m.partition(), m.offset(), m.key(), m.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(m.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return found


def check_log(journal: Journal, topic: str, log: Iterable[Message]) -> list[str]:
    """I1 and I5: every acknowledged record is in the log, nothing else is, and each key's records are in their order."""
    found: dict[bytes | None, list[bytes | None]] = {}
    for m in log:
        found.setdefault(m.key, []).append(m.value)
    lines = []
    acknowledged, tried = _by_key(journal.acknowledged.get(topic, ())), _by_key(journal.tried.get(topic, ()))
    for key, values in acknowledged.items():
        missing = Counter(values) - Counter(found.get(key, ()))
        if missing:
            lines.append(f"I1: {topic}: {missing.total()} acknowledged records of {key!r} are not in the log")
    for key, values in found.items():
        strange = set(values) - set(tried.get(key, ()))
        if strange:
            lines.append(f"I1: {topic}: {len(strange)} records of {key!r} that nobody published")
    for key, values in tried.items():
        if key is None or key not in found:
            continue
        first: dict[bytes | None, int] = {}
        for i, value in enumerate(values):
            first.setdefault(value, i)
        order = [first[v] for v in dict.fromkeys(found[key]) if v in first]
        if order != sorted(order):
            lines.append(f"I5: {topic}: records of {key!r} are not in the order in which they were published")
    return lines


def check_tables(settings: Settings, pipelines: Iterable[Pipeline], answers: Answers) -> list[str]:
    """I2: every table equals the oracle cell by cell, write timestamps too."""
    c, lines = settings.cassandra, []
    for pipeline in pipelines:
        rows = [row for answer in answers[pipeline.name].values() for row in answer.rows]
        table = read_table(c.contact_points.split(","), c.port, c.keyspace, pipeline.table.name)
        different = compare(pipeline, rows, table)
        lines += [f"I2: {pipeline.name}: {line}" for line in different[:SHOWN]]
        if len(different) > SHOWN:
            lines.append(f"I2: {pipeline.name}: {len(different)} differences in all")
    return lines


def check_books(settings: Settings, catalog: Catalog, answers: Answers) -> list[str]:
    """I4: the ledger of the last checkpoints covers the log, adds up, and has the oracle's numbers."""
    lines, seen = [], set()
    for entry in read_ledger(settings, catalog):
        seen.add((entry.pipeline, entry.partition))
        where = f"I4: {entry.pipeline} of {entry.topic}[{entry.partition}]"
        if not entry.adds_up:
            lines.append(f"{where} does not add up: {entry}")
        if entry.covered != entry.end:
            lines.append(f"{where}: the last checkpoint covers {entry.covered} of {entry.end}")
            continue
        wanted = answers[entry.pipeline][entry.partition].ledger
        lines += [
            f"{where}: {name} is {getattr(entry, name)}, should be {getattr(wanted, name)}"
            for name in FATES
            if getattr(entry, name) != getattr(wanted, name)
        ]
    lines += [
        f"I4: no ledger of {pipeline}, partition {partition}"
        for pipeline, partitions in answers.items()
        for partition, answer in partitions.items()
        if answer.ledger.records and (pipeline, partition) not in seen
    ]
    return lines


def check_aside(settings: Settings, pipelines: Iterable[Pipeline], answers: Answers) -> list[str]:
    """I4: late events and dead letters, each known by its source, are those of the oracle."""
    lines = []
    by_source: dict[str, list[Pipeline]] = {}
    for pipeline in pipelines:
        by_source.setdefault(pipeline.source, []).append(pipeline)
    for source, readers in by_source.items():
        each = [(p.name, n, answer) for p in readers for n, answer in answers[p.name].items()]
        late = {(name, n, x.offset, x.late_by_ms) for name, n, answer in each for x in answer.late}
        held = _datums(settings.kafka, f"{source}.late", "fluvial.LateEvent")
        found = {(d["pipeline"], d["source_partition"], d["source_offset"], d["late_by_ms"]) for d in held}
        lines += _differences(f"I4: {source}.late", found, late)
        dead = {(n, x.offset) for _, n, answer in each for x in answer.dead}
        held = _datums(settings.kafka, f"{source}.dead-letter", "fluvial.DeadLetter")
        lines += _differences(f"I4: {source}.dead-letter", {(d["partition"], d["offset"]) for d in held}, dead)
        payloads = {(m.partition, m.offset): m.value for m in read_topic(settings.kafka, source)}
        altered = [d for d in held if d["payload"] != payloads[d["partition"], d["offset"]]]
        if altered:
            lines.append(f"I4: {source}.dead-letter: {len(altered)} payloads are not what the log holds")
    return lines


def check_rekeyed(settings: Settings, pipelines: Iterable[Pipeline], answers: Answers) -> list[str]:
    """I1: the copies of events under another key are those of all usable events, whatever was repeated."""
    schemas, brokers, lines = registry(settings.registry.url), settings.kafka.brokers, []
    readers = {p.source: p.name for p in pipelines if not p.upstream}
    for rekey in dict.fromkeys(r for p in pipelines for r in p.upstream):
        if rekey.source not in readers or rekey.explode is None:
            continue
        wanted, found = set(), set()
        for partition in partitions_of(brokers, rekey.source):
            bad = {x.offset for x in answers[readers[rekey.source]][partition].dead}
            for r in read_partition(brokers, schemas, rekey.source, partition):
                if r.event is not None and r.offset not in bad:
                    wanted |= {(partition, r.offset, item) for item in r.event[rekey.explode]}
        for partition in partitions_of(brokers, rekey.topic):
            for r in read_partition(brokers, schemas, rekey.topic, partition):
                if r.event is not None:
                    e = r.event
                    found.add((e["upstream_partition"], e["upstream_offset"], e[rekey.explode_as or ""]))
        lines += _differences(f"I1: {rekey.topic}", found, wanted)
    return lines


def answers_of(settings: Settings, pipelines: Iterable[Pipeline], generation: int = 0) -> Answers:
    """Return the oracle's answer per pipeline and partition."""
    schemas, brokers = registry(settings.registry.url), settings.kafka.brokers
    plans = plan_topics(pipelines)
    found: dict[str, Mapping[int, OracleResult]] = {}
    for pipeline in pipelines:
        upstream = plans[pipeline.source].upstream
        count = len(partitions_of(brokers, upstream)) if upstream else 0
        found[pipeline.name] = ask_oracle(pipeline, brokers, schemas, upstream_partitions=count, generation=generation)
    return found


def _by_key(records: Iterable[OutRecord]) -> dict[bytes | None, list[bytes | None]]:
    found: dict[bytes | None, list[bytes | None]] = {}
    for r in records:
        found.setdefault(r.key, []).append(r.value)
    return found


def _datums(kafka: KafkaSettings, topic: str, schema: str) -> list[dict[str, Any]]:
    return [read_datum(m.value, load_schema(schema)) for m in read_topic(kafka, topic) if m.value is not None]


def _differences(where: str, found: set[Any], wanted: set[Any]) -> list[str]:
    lines = [f"{where}: missing {sorted(wanted - found)[:SHOWN]}"] if wanted - found else []
    return lines + ([f"{where}: not expected {sorted(found - wanted)[:SHOWN]}"] if found - wanted else [])
