"""One broker of three with a clock an hour off, or without room on its disk: what is acknowledged is in the log."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.cluster import LocalCluster
from fluvial.settings import KafkaSettings
from support.quorum import clusters
from support.quorum.brokers import leaders, placed_topic, read_log, whole, within
from support.quorum.clusters import own_cluster
from support.quorum.harm import COMPILER, fill_disk, wrong_clock
from support.quorum.producing import Writer, compare
from support.quorum.report import Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(500)]

HOUR = 3600


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers of these trials' own."""
    with own_cluster(tmp_path_factory, clusters.BROKERS) as own:
        yield own


@pytest.mark.skipif(COMPILER is None, reason="a clock is shifted by a library that must be compiled")
@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_leader_whose_clock_is_an_hour_off(cluster: LocalCluster, seconds: int, tmp_path: Path) -> None:
    kafka = cluster.settings.kafka
    seen = Seen(16, f"clock of a broker {seconds // HOUR:+} h", 1, faults=[f"clock of kafka-1 {seconds:+} s"])
    with wrong_clock(cluster, "kafka-1", seconds, tmp_path), placed_topic(kafka, [[1, 2, 3]]) as topic:
        within(60, lambda: whole(kafka, topic) or None)
        with Writer(kafka, topic, 1) as writer:
            time.sleep(4)
            cluster.kill("kafka-1")
            seen.faults.append("kill kafka-1")
            within(60, lambda: leaders(kafka, topic)[:1] not in ([], [-1], [1]) or None)
            time.sleep(4)
        cluster.start_server("kafka-1")
        _finish(seen, kafka, topic, writer)


def test_a_leader_whose_disk_is_full(cluster: LocalCluster) -> None:
    kafka = cluster.settings.kafka
    seen = Seen(17, "disk full at a broker", 1, faults=["kafka-1's files grow no more"])
    with placed_topic(kafka, [[1, 2, 3]]) as topic:
        with Writer(kafka, topic, 1) as writer:
            time.sleep(3)
            begun = time.monotonic()
            fill_disk(cluster, "kafka-1")
            within(60, lambda: leaders(kafka, topic)[:1] not in ([], [-1], [1]) or None)
            ended = within(60, lambda: not cluster.is_running("kafka-1") or None)
            time.sleep(5)
            gap = writer.journal.longest_gap(begun, time.monotonic())
        cluster.start_server("kafka-1")
        _finish(seen, kafka, topic, writer, ended_itself=ended, longest_gap=round(gap, 1))


def _finish(seen: Seen, kafka: KafkaSettings, topic: str, writer: Writer, **more: object) -> None:
    within(90, lambda: whole(kafka, topic) or None)
    found = compare(writer.journal, read_log(kafka, topic, 1))
    seen.events = found.acknowledged
    seen.violations = found.violations(once=not writer.journal.refused)
    seen.seen = {"acknowledged": found.acknowledged, "refused": dict(writer.journal.errors()), **more}
    seen.write()
