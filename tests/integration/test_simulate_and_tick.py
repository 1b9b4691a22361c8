"""Simulations and the ticker on a real Kafka."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from fluvial.oracle.from_kafka import read_partition
from fluvial.oracle.from_kafka import registry as schemas_by_id
from fluvial.producers.simulation import Progress
from fluvial.producers.simulation_plan import SimulationRequest, plan_simulation
from fluvial.producers.ticker import Ticker
from fluvial.schemas.catalog import Catalog
from fluvial.services.simulating import simulate
from fluvial.settings import KafkaSettings, RegistrySettings, Settings
from fluvial.stream_apps.shipped import DECLARATION
from fluvial.transport.publisher import Publisher
from support.transport import ends, fresh_topic

pytestmark = pytest.mark.integration

START = 1_700_000_000_000
PARTITIONS = 2


@pytest.fixture
def settings(kafka: KafkaSettings, registry: RegistrySettings) -> Settings:
    """Settings that lead to both servers."""
    return Settings(kafka=kafka, registry=registry)


async def test_two_runs_with_one_seed_put_the_same_events_into_the_log(settings: Settings) -> None:
    request = SimulationRequest("sensors", 9, 20, None, 3_000, None, START, 30, 0.05)
    found = []
    for rate in (None, 6_000.0):
        plan = plan_simulation(replace(request, rate=rate), 0)
        seen: list[Progress] = []
        with fresh_topic(settings.kafka, PARTITIONS) as topic:
            done = await simulate(settings, Catalog([DECLARATION]), plan, topic=topic, report=seen.append)
            schemas = schemas_by_id(settings.registry.url)
            log = [read_partition(settings.kafka.brokers, schemas, topic, p) for p in range(PARTITIONS)]
        assert (done.events, done.acknowledged) == (3_000, 3_000)
        assert seen
        assert all(r.kind == "event" and r.event and r.key == r.event["sensor_id"].encode() for p in log for r in p)
        found.append([[(r.key, dict(r.event or {})) for r in p] for p in log])
    assert found[0] == found[1]
    repeats = Counter((e["sensor_id"], e["metric"], e["sequence"]) for p in found[0] for _, e in p)
    assert set(repeats.values()) == {1, 2}


def test_ctrl_c_ends_a_simulation_and_everything_sent_is_acknowledged(settings: Settings) -> None:
    environment = {
        "FLUVIAL_KAFKA__BROKERS": settings.kafka.brokers,
        "FLUVIAL_REGISTRY__URL": settings.registry.url,
        "PATH": "",
    }
    with fresh_topic(settings.kafka, PARTITIONS) as topic:
        arguments = ["simulate", "sensors", "--rate", "500", "--topic", topic]
        code = f"import sys; from fluvial.cli import main; main({arguments!r})"
        with subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                while not sum(ends(settings.kafka, topic, PARTITIONS)):
                    assert process.poll() is None
                process.send_signal(signal.SIGINT)
                told, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        sent = sum(ends(settings.kafka, topic, PARTITIONS))
    assert process.returncode == 0
    assert told.startswith(f"{sent:,} events in ")
    assert told.endswith(f"{sent:,} acknowledged\n")


async def test_ticks_reach_every_partition(settings: Settings) -> None:
    stop = asyncio.Event()
    instants = iter(range(1_000, 1_000_000, 10))

    def now() -> int:
        instant = next(instants)
        if instant == 1_020:
            stop.set()
        return instant

    with fresh_topic(settings.kafka, PARTITIONS) as topic:
        async with Publisher(settings.kafka) as publisher:
            await Ticker(publisher, {topic: PARTITIONS}, tick_seconds=0.01, now_ms=now, delay_ms=0).run(stop)
        schemas = schemas_by_id(settings.registry.url)
        log = [read_partition(settings.kafka.brokers, schemas, topic, p) for p in range(PARTITIONS)]
    assert [[(r.kind, r.key, r.time) for r in p] for p in log] == [
        [("tick", None, t) for t in (1_000, 1_010, 1_020)] for _ in range(PARTITIONS)
    ]
