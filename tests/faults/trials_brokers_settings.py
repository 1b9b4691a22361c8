"""What acks, min.insync.replicas and unclean election choose, C or A: the same faults with other settings, and the losses."""

import time
from collections.abc import Iterator

import pytest

from fluvial.cluster import LocalCluster
from fluvial.settings import KafkaSettings
from support.quorum import clusters
from support.quorum.brokers import in_sync, leaders, placed_topic, read_log, whole, within
from support.quorum.clusters import own_cluster
from support.quorum.producing import Writer, compare
from support.quorum.report import Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(400)]

RATE = 500.0
LEADER, FOLLOWERS = 1, (2, 3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers of these trials' own."""
    with own_cluster(tmp_path_factory, clusters.BROKERS) as own:
        yield own


@pytest.fixture
def kafka(cluster: LocalCluster) -> Iterator[KafkaSettings]:
    """All three brokers, and again after the trial."""
    yield cluster.settings.kafka
    for broker in (LEADER, *FOLLOWERS):
        cluster.start_server(f"kafka-{broker}")


@pytest.mark.parametrize("acks", ["1", "all"])
def test_a_leader_that_dies_before_its_followers_have_read(
    cluster: LocalCluster, kafka: KafkaSettings, acks: str
) -> None:
    """The followers stand still for 4 s, and then the leader is gone: acks=1 loses what it acknowledged, all waits."""
    seen = Seen(8, f"SIGSTOP the followers, SIGKILL the leader, acks={acks}", 1)
    with placed_topic(kafka, [[LEADER, *FOLLOWERS]]) as topic:
        with Writer(kafka, topic, 1, rate=RATE, acks=acks) as writer:
            time.sleep(2)
            for broker in FOLLOWERS:
                cluster.pause(f"kafka-{broker}")
            begun = time.monotonic() + 0.2
            time.sleep(4)
            meanwhile = writer.journal.acknowledged_between(begun, time.monotonic())
            cluster.kill(f"kafka-{LEADER}")
            for broker in FOLLOWERS:
                cluster.resume(f"kafka-{broker}")
            seen.faults = [f"pause kafka-2 and kafka-3 for 4 s, kill kafka-{LEADER}"]
            within(60, lambda: (leaders(kafka, topic) or [-1])[0] in FOLLOWERS or None)
            time.sleep(4)
            gap = writer.journal.longest_gap(begun, time.monotonic())
        cluster.start_server(f"kafka-{LEADER}")
        _finish(seen, kafka, topic, writer, acknowledged_meanwhile=meanwhile, longest_gap=round(gap, 2))
    if acks == "all":
        assert not seen.violations
        assert meanwhile == 0
    assert seen.seen["missing"] == 0 if acks == "all" else int(str(seen.seen["missing"])) > 0


@pytest.mark.parametrize("unclean", ["false", "true"])
def test_the_only_replica_in_sync_dies_and_an_old_one_is_there(
    cluster: LocalCluster, kafka: KafkaSettings, unclean: str
) -> None:
    """With min.insync.replicas=1 the leader goes on alone; when it dies, the partition waits for it or forgets."""
    seen = Seen(9, f"the last in sync dies, min.insync.replicas=1, unclean election {unclean}", 1)
    settings = {"min.insync.replicas": "1", "unclean.leader.election.enable": unclean}
    with placed_topic(kafka, [[LEADER, 2]], **settings) as topic:
        with Writer(kafka, topic, 1, rate=RATE) as writer:
            time.sleep(2)
            cluster.kill("kafka-2")
            within(60, lambda: in_sync(kafka, topic) == [[LEADER]] or None)
            begun = time.monotonic()
            time.sleep(3)
            alone = writer.journal.acknowledged_between(begun, time.monotonic())
            cluster.kill(f"kafka-{LEADER}")
            died = time.monotonic()
            cluster.start_server("kafka-2")
            seen.faults = [
                "kill kafka-2",
                f"3 s later kill kafka-{LEADER}",
                "start kafka-2",
                f"20 s later kafka-{LEADER}",
            ]
            time.sleep(20)
            offline = leaders(kafka, topic) != [2]
            cluster.start_server(f"kafka-{LEADER}")
            time.sleep(8)
            gap = writer.journal.longest_gap(died, time.monotonic())
        more = {"acknowledged_alone": alone, "offline": offline, "longest_gap": round(gap, 2)}
        _finish(seen, kafka, topic, writer, replicas=2, **more)
    assert offline == (unclean == "false")
    assert (int(str(seen.seen["missing"])) > 0) == (unclean == "true")


def _finish(seen: Seen, kafka: KafkaSettings, topic: str, writer: Writer, *, replicas: int = 3, **more: object) -> None:
    within(90, lambda: whole(kafka, topic, replicas) or None)
    found = compare(writer.journal, read_log(kafka, topic, 1))
    seen.events = found.acknowledged
    seen.seen = {
        "sent": len(writer.journal.sent), "acknowledged": found.acknowledged, "refused": dict(writer.journal.errors()),
        "missing": found.missing, "repeated": found.repeated, **more,
    }  # fmt: skip
    seen.write()
