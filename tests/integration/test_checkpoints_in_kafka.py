"""Checkpoints in a real topic: read back, cleaned up, and not harmed by a writer that is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from fluvial.schemas.topics import CHECKPOINT_BYTES, TopicSpec, ensure_topics
from fluvial.settings import KafkaSettings
from fluvial.stream_apps.checkpoint_reader import read_topic
from fluvial.stream_apps.checkpoints import CheckpointStore, Place, Written
from fluvial.stream_apps.snapshots import arrays_of
from fluvial.stream_apps.stage import PartitionStage
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import Publisher
from support import states

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PLACE = Place("iot.readings", 0, 0)
SENSORS = 20_000


def create(kafka: KafkaSettings, topic: str) -> None:
    config = {"cleanup.policy": "compact", "max.message.bytes": str(CHECKPOINT_BYTES)}
    ensure_topics(AdminClient(librdkafka_config(kafka)), [TopicSpec(topic, 1, 1, config)])


async def write(kafka: KafkaSettings, store: CheckpointStore, stage: PartitionStage) -> Written:
    async with Publisher(kafka) as publisher:
        return await store.write(publisher, PLACE, stage.next_offset, stage.state(stage.room()))


def recovered(kafka: KafkaSettings, topic: str) -> tuple[PartitionStage, CheckpointStore]:
    store, stage = CheckpointStore(kafka, topic, 1), states.stage()
    found = store.load([PLACE])
    if PLACE in found:
        assert stage.restore(found[PLACE]) == []
    return stage, store


def arrays(stage: PartitionStage) -> dict[str, bytes]:
    parts: dict[str, Any] = stage.state()["components"]
    return {f"{c}.{n}": a.tobytes() for c, part in parts.items() for n, a in arrays_of(part["arrays"]).items()}


def keys(kafka: KafkaSettings, topic: str) -> set[bytes]:
    there: dict[bytes, bytes | None] = {r.key: r.value for r in read_topic(kafka, topic, {0: (0, None)})}
    return {key for key, value in there.items() if value is not None}


def test_a_stage_is_recovered_bit_for_bit_and_old_checkpoints_are_gone(kafka: KafkaSettings, topic: str) -> None:
    create(kafka, topic)
    stage, store = recovered(kafka, topic)
    assert stage.next_offset == 0
    blocks = 0
    for turn in range(4):
        for batch in states.batches(SENSORS * (1 + (turn == 0)), stage.next_offset):
            states.fold(stage, batch)
        blocks = max(blocks, asyncio.run(write(kafka, store, stage)).blocks)
        other, _ = recovered(kafka, topic)
        assert other.next_offset == stage.next_offset
        assert arrays(other) == arrays(stage)
    assert len(keys(kafka, topic)) <= 2 * (blocks + 1)
    assert CheckpointStore(kafka, topic, 1).ledgers([PLACE]) == {PLACE: (stage.next_offset, stage.ledger())}


def test_little_is_written_when_little_has_changed(kafka: KafkaSettings, topic: str) -> None:
    create(kafka, topic)
    stage, store = recovered(kafka, topic)
    for batch in states.batches(SENSORS):
        states.fold(stage, batch)
    whole = asyncio.run(write(kafka, store, stage))
    states.fold(stage, states.readings(SENSORS, range(100), per_second=SENSORS))
    part = asyncio.run(write(kafka, store, stage))
    assert part.bytes < whole.bytes / 5


KILLED = """
import asyncio, sys
from pathlib import Path
from fluvial import failpoints
from fluvial.settings import KafkaSettings
sys.path.insert(0, sys.argv[3])
import test_checkpoints_in_kafka as here
kafka, topic = KafkaSettings.model_validate_json(sys.argv[1]), sys.argv[2]
stage, store = here.recovered(kafka, topic)
for batch in here.states.batches(2 * here.SENSORS, stage.next_offset):
    here.states.fold(stage, batch)
failpoints.arm({"FLUVIAL_FAILPOINTS": sys.argv[4]})
asyncio.run(here.write(kafka, store, stage))
"""


@pytest.mark.parametrize(
    "at", ["amid-chunks=kill@2", "between-chunks-and-manifest=kill", "between-manifest-and-clean-up=kill"]
)
def test_a_kill_in_the_middle_of_a_checkpoint_leaves_a_usable_one(kafka: KafkaSettings, topic: str, at: str) -> None:
    create(kafka, topic)
    stage, store = recovered(kafka, topic)
    for batch in states.batches(SENSORS):
        states.fold(stage, batch)
    asyncio.run(write(kafka, store, stage))
    tests = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-c",
        KILLED,
        kafka.model_dump_json(),
        topic,
        str(Path(__file__).parent),
        f"checkpoint.{at}",
    ]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tests)}, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    if "clean-up" in at:
        for batch in states.batches(2 * SENSORS, stage.next_offset):
            states.fold(stage, batch)
    other, store = recovered(kafka, topic)
    assert other.next_offset == stage.next_offset
    assert arrays(other) == arrays(stage)
    blocks = [asyncio.run(write(kafka, store, other)).blocks for _ in range(2)]
    assert len(keys(kafka, topic)) <= blocks[0] + 2
