"""A broker that goes away under a running worker and a publisher: they wait, and go on."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.records import Spans
from fluvial.transport.publisher import Publisher
from support import ask_positions
from support.batch_worker import exit_status, log_of, worker
from support.transport import app_for, committed, eventually, fresh_topic, group_id, produce, running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A broker of our own."""
    cluster = LocalCluster(tmp_path_factory.mktemp("outage"), ClusterSpec())
    cluster.start_server("kafka-1")
    yield cluster
    cluster.wipe()


async def outage(cluster: LocalCluster, seconds: float) -> None:
    """Stop the broker for that long."""
    await asyncio.to_thread(cluster.stop_server, "kafka-1")
    await asyncio.sleep(seconds)
    await asyncio.to_thread(cluster.start_server, "kafka-1")


async def test_a_worker_waits_for_its_broker_and_reads_on(cluster: LocalCluster) -> None:
    kafka = cluster.settings.kafka
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"before"] * 10)
        group = group_id()
        app = app_for(kafka, name, group, stall_seconds=15)
        seen: list[int] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: len(seen) == 10)
            await outage(cluster, 8)
            await asyncio.to_thread(produce, kafka, name, [b"after"] * 10)
            await eventually(lambda: len(seen) >= 20, 60)
            await eventually(lambda: committed(kafka, group, name) == [20], 60)
        assert seen == list(range(20))


async def test_a_worker_that_is_told_to_stop_during_an_outage_does_not_wait_for_its_end(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    kafka = cluster.settings.kafka
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"1"])
        file = tmp_path / "finished"
        with worker(kafka, name, group_id(), file, "work") as process:
            await eventually(lambda: "Worker ready" in log_of(file), 60)
            await asyncio.to_thread(cluster.stop_server, "kafka-1")
            try:
                process.send_signal(signal.SIGTERM)
                assert await exit_status(process) == 0
            finally:
                await asyncio.to_thread(cluster.start_server, "kafka-1")


async def test_what_is_published_during_an_outage_is_acknowledged_after_it_once(cluster: LocalCluster) -> None:
    kafka = cluster.settings.kafka
    n = 1000
    values = Spans(np.zeros(n, np.uint8), np.arange(n), np.ones(n, np.int64))
    with fresh_topic(kafka) as name:
        async with Publisher(kafka) as publisher:
            await (await publisher.publish(name, None, values))
            away = asyncio.ensure_future(outage(cluster, 5))
            deliveries = []
            for _ in range(20):
                deliveries.append(await publisher.publish(name, None, values))
                await asyncio.sleep(0.1)
            await away
            for delivery in deliveries:
                await delivery
        app = app_for(kafka, name, group_id())
        seen: list[int] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: len(seen) >= 21 * n)
        assert seen == list(range(21 * n))


async def test_who_asks_how_far_a_group_is_survives_a_coordinator_that_starts(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    kafka, stop = cluster.settings.kafka, tmp_path / "stop"
    with fresh_topic(kafka) as name:
        command = [sys.executable, ask_positions.__file__, kafka.brokers, group_id(), name, str(stop)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as asking:  # noqa: ASYNC220 -- it returns at once
            await outage(cluster, 1)
            await asyncio.sleep(3)
            stop.touch()
            assert await asyncio.to_thread(asking.wait, 60) == 0
