"""What a worker does with records that it cannot use, on real servers: kept, explained, counted; the others unharmed."""

import asyncio
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from fluvial.schemas.avro import DatumWriter, load_schema, read_datum
from fluvial.schemas.registry import Registry
from fluvial.services.partitions import partition_counts
from fluvial.settings import Settings
from fluvial.transport.publisher import OutRecord, Publisher
from support.programs import FLUVIAL
from support.servers import unique_keyspace

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MINUTE = 60_000


def fluvial(settings: Settings, name: str, folder: Path, *arguments: str) -> str:
    changed = {
        "FLUVIAL_KAFKA__BROKERS": settings.kafka.brokers,
        "FLUVIAL_REGISTRY__URL": settings.registry.url,
        "FLUVIAL_CASSANDRA__CONTACT_POINTS": settings.cassandra.contact_points,
        "FLUVIAL_CASSANDRA__PORT": str(settings.cassandra.port),
        "FLUVIAL_CASSANDRA__KEYSPACE": name,
        "FLUVIAL_WORKER__GROUP": f"{name}-worker",
        "FLUVIAL_WORKER__PIPELINES": "sensor_minute",
        "FLUVIAL_SINK__GROUP": f"{name}-sink",
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")} | changed
    done = subprocess.run(
        [FLUVIAL, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def new_records(settings: Settings, topic: str, since: dict[int, int]) -> list[bytes]:
    """Return the values of a topic after some offsets."""
    consumer = Consumer({"bootstrap.servers": settings.kafka.brokers, "group.id": "reader"})
    try:
        values: list[bytes] = []
        for partition, first in since.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            consumer.assign([TopicPartition(topic, partition, first)])
            while len(values) < 10_000 and first < end:
                m = consumer.poll(10)
                assert m is not None
                assert m.error() is None
                values.append(m.value())
                first = m.offset() + 1
        return values
    finally:
        consumer.close()


def ends(settings: Settings, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": settings.kafka.brokers, "group.id": "reader"})
    try:
        count = partition_counts(settings.kafka, {topic})[topic]
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(count)}
    finally:
        consumer.close()


def test_bad_records_and_late_events_are_kept_with_their_reasons_and_harm_nothing_else(
    cluster_settings: Settings, tmp_path: Path
) -> None:
    s, name = cluster_settings, unique_keyspace("aside")
    fluvial(s, name, tmp_path, "init", "--quiet")
    sensor = f"sensor-{uuid.uuid4().hex[:8]}"
    base = 1_700_000_000_000 // MINUTE * MINUTE
    schema = load_schema("fluvial.iot.SensorReading")
    with Registry(s.registry) as registry:
        writer = DatumWriter(schema, registry.schema_id("iot.readings-value", schema))

    def reading(t: int, value: float, sequence: int) -> OutRecord:
        event = {"sensor_id": sensor, "metric": "m", "site": "", "event_time": t, "value": value, "unit": None}
        return OutRecord(sensor.encode(), writer.write(event | {"sequence": sequence}))

    good = reading(base, 1.0, 1)
    assert good.value is not None
    records = [
        good,
        reading(base + 1_000, 2.0, 2),
        reading(base + 1_000, 2.0, 2),  # a repeat
        OutRecord(sensor.encode(), b"garbage", headers=(("gateway", b"g1"),)),
        OutRecord(sensor.encode(), good.value[:-3]),  # truncated
        OutRecord(sensor.encode(), b"\0" + (2_000_000_000).to_bytes(4, "big") + good.value[5:]),  # an unknown schema
        OutRecord(sensor.encode(), None),  # null, and no tick
        reading(base + 2_000, float("nan"), 3),
        reading(int(time.time() * 1000) + 3_600_000, 9.0, 4),  # an hour ahead
        reading(base + 10 * MINUTE, 5.0, 5),  # closes the first window
        reading(base + 3_000, 7.0, 6),  # late
    ]
    dead_before, late_before = ends(s, "iot.readings.dead-letter"), ends(s, "iot.readings.late")

    async def publish() -> None:
        async with Publisher(s.kafka) as publisher:
            await (await publisher.publish_records("iot.readings", records))

    asyncio.run(publish())
    fluvial(s, name, tmp_path, "run", "--until-caught-up")

    dead_schema, late_schema = load_schema("fluvial.DeadLetter"), load_schema("fluvial.LateEvent")
    dead = [read_datum(v, dead_schema) for v in new_records(s, "iot.readings.dead-letter", dead_before)]
    mine = sorted((d for d in dead if d["key"] == sensor.encode()), key=lambda d: d["offset"])
    assert [(d["stage"], d["payload"]) for d in mine] == [
        ("decode", b"garbage"),
        ("decode", records[4].value),
        ("decode", records[5].value),
        ("validate", None),
        ("validate", records[7].value),
        ("validate", records[8].value),
    ]
    assert mine[0]["headers"] == [{"name": "gateway", "value": b"g1"}]
    assert all(f"iot.readings[{d['partition']}]@{d['offset']}" in d["error_message"] for d in mine)
    late = [read_datum(v, late_schema) for v in new_records(s, "iot.readings.late", late_before)]
    (held,) = [x for x in late if x["key"] == sensor.encode()]
    assert held["payload"] == records[10].value
    assert held["late_by_ms"] == 9 * MINUTE - 3_000

    span = ("--from", "2023-11-14", "--to", "2023-11-15", "--format", "json")
    out = fluvial(s, name, tmp_path, "query", "sensor_minute", sensor, "m", *span)
    rows = {r["window_start"]: r for r in map(json.loads, out.splitlines())}
    assert sorted((r["count"], r["sum"], r["duplicates"], r["final"]) for r in rows.values()) == [
        (1, 5.0, 0, False),
        (2, 3.0, 1, True),
    ]
    ledger = [json.loads(line) for line in fluvial(s, name, tmp_path, "ledger", "--format", "json").splitlines()]
    assert all(line["adds_up"] for line in ledger)
