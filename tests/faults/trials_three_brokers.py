"""Three brokers, three replicas, min.insync.replicas = 2: what a producer at acks=all sees when some of them go away.

The journal of acknowledgements is compared with the log afterwards: all of them are there, once, in order.
"""

import random
import time
from collections.abc import Iterator

import pytest

from fluvial.cluster import LocalCluster
from fluvial.settings import KafkaSettings
from support.quorum import clusters
from support.quorum.brokers import Quorum, in_sync, leaders, placed_topic, read_log, whole, within
from support.quorum.clusters import own_cluster
from support.quorum.producing import Journal, Writer, compare
from support.quorum.report import SEED, Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(400)]

RATE = 500.0
BROKERS = (1, 2, 3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers of these trials' own."""
    with own_cluster(tmp_path_factory, clusters.BROKERS) as own:
        yield own


@pytest.fixture
def kafka(cluster: LocalCluster) -> Iterator[KafkaSettings]:
    """All three brokers, and again after the trial."""
    yield cluster.settings.kafka
    for broker in BROKERS:
        cluster.start_server(f"kafka-{broker}")


@pytest.fixture
def rng() -> random.Random:
    """What a trial draws from."""
    return random.Random(SEED)


def finish(
    seen: Seen, kafka: KafkaSettings, topic: str, journal: Journal, *, once: bool = True, **more: object
) -> None:
    """Compare the journal with the log, and write the trial down; ``once``: no record may be there twice."""
    within(90, lambda: whole(kafka, topic) or None)
    found = compare(journal, read_log(kafka, topic, len(leaders(kafka, topic))))
    seen.events = found.acknowledged
    seen.violations += found.violations(once=once)
    seen.seen = {
        "sent": len(journal.sent),
        "acknowledged": found.acknowledged,
        "refused": dict(journal.errors()),
        "logged": found.logged,
        "missing": found.missing,
        "repeated": found.repeated,
        **more,
    }
    seen.write()


def test_the_leader_is_killed_and_another_one_goes_on(
    cluster: LocalCluster, kafka: KafkaSettings, rng: random.Random
) -> None:
    active = Quorum(cluster).wait().node
    leader = rng.choice([b for b in BROKERS if b != active])
    others = [b for b in BROKERS if b != leader]
    seen = Seen(8, "SIGKILL the partition leader", SEED)
    with placed_topic(kafka, [[leader, *others]]) as topic:
        with Writer(kafka, topic, 1, rate=RATE) as writer:
            time.sleep(rng.uniform(1.5, 3))
            begun = time.monotonic()
            cluster.kill(f"kafka-{leader}")
            seen.faults.append(f"kill kafka-{leader}, the leader")
            moved = (
                within(60, lambda: leaders(kafka, topic)[:1] not in ([], [-1], [leader]) or None) and time.monotonic()
            )
            time.sleep(rng.uniform(3, 5))
            gap = writer.journal.longest_gap(begun, time.monotonic())
        cluster.start_server(f"kafka-{leader}")
        finish(seen, kafka, topic, writer.journal, longest_gap=round(gap, 2), new_leader_after=round(moved - begun, 2))


def test_the_active_controller_is_killed_and_raft_elects_another(
    cluster: LocalCluster, kafka: KafkaSettings, rng: random.Random
) -> None:
    quorum = Quorum(cluster)
    before = quorum.wait()
    others = [b for b in BROKERS if b != before.node]
    rng.shuffle(others)
    seen = Seen(10, "SIGKILL the active KRaft controller", SEED)
    # The controller's broker follows, so that what the producer sees is the controller's absence and not its leader's.
    with placed_topic(kafka, [[*others, before.node]]) as topic:
        with Writer(kafka, topic, 1, rate=RATE) as writer:
            time.sleep(rng.uniform(1.5, 3))
            begun = time.monotonic()
            cluster.kill(f"kafka-{before.node}")
            seen.faults.append(f"kill kafka-{before.node}, the active controller")
            gone = time.monotonic()
            after = quorum.wait(after_epoch=before.epoch)
            elected = time.monotonic() - gone
            shrunk = within(60, lambda: before.node not in in_sync(kafka, topic)[0] or None) and time.monotonic() - gone
            time.sleep(rng.uniform(2, 4))
            gap = writer.journal.longest_gap(begun, time.monotonic())
        assert after.node != before.node
        seen.recoveries.append(round(elected, 3))
        cluster.start_server(f"kafka-{before.node}")
        finish(
            seen, kafka, topic, writer.journal,
            longest_gap=round(gap, 3), elected_after=round(elected, 3), out_of_sync_after=round(shrunk, 2),
        )  # fmt: skip


@pytest.mark.parametrize("give_up_seconds", [120, 10])
def test_two_brokers_are_killed_and_nothing_is_acknowledged_until_one_is_back(
    cluster: LocalCluster, kafka: KafkaSettings, rng: random.Random, give_up_seconds: int
) -> None:
    victims = rng.sample(BROKERS, 2)
    seen = Seen(9, f"SIGKILL 2 of 3 brokers, records given up after {give_up_seconds} s", SEED)
    with placed_topic(kafka, [[1, 2, 3], [2, 3, 1], [3, 1, 2]]) as topic:
        with Writer(kafka, topic, 3, rate=RATE, give_up_seconds=give_up_seconds) as writer:
            time.sleep(rng.uniform(1.5, 3))
            for broker in victims:
                cluster.kill(f"kafka-{broker}")
                seen.faults.append(f"kill kafka-{broker}")
                time.sleep(rng.uniform(0, 0.5))
            alone = time.monotonic() + 0.5
            time.sleep(rng.uniform(14, 18))
            back = time.monotonic()
            while_alone = writer.journal.acknowledged_between(alone, back)
            cluster.start_server(f"kafka-{victims[0]}")
            resumed = within(60, lambda: _acknowledged_after(writer.journal, back))
            time.sleep(3)
        cluster.start_server(f"kafka-{victims[1]}")
        if while_alone:
            seen.violations.append(f"I1: {while_alone} records were acknowledged by one broker of three")
        # librdkafka takes a new epoch when it gives a record up, and sends what is in flight again under it: those the
        # lone leader had in its log already are then there twice. Tables count them once, by the events' identities.
        finish(
            seen, kafka, topic, writer.journal, once=not writer.journal.refused,
            alone_for=round(back - alone, 1), acknowledged_while_alone=while_alone,
            acknowledging_after=round(resumed - back, 2),
        )  # fmt: skip


def test_the_leader_is_stopped_and_its_late_answers_make_no_duplicates(
    cluster: LocalCluster, kafka: KafkaSettings, rng: random.Random
) -> None:
    leader = rng.choice(BROKERS)
    others = [b for b in BROKERS if b != leader]
    seen = Seen(11, "SIGSTOP the leader", SEED)
    with placed_topic(kafka, [[leader, *others]]) as topic:
        with Writer(kafka, topic, 1, rate=RATE) as writer:
            time.sleep(rng.uniform(1.5, 3))
            begun, held = time.monotonic(), rng.uniform(25, 35)
            cluster.pause(f"kafka-{leader}")
            seen.faults.append(f"pause kafka-{leader}, the leader, for {held:.0f} s")
            time.sleep(held)
            cluster.resume(f"kafka-{leader}")
            time.sleep(rng.uniform(5, 8))
            gap = writer.journal.longest_gap(begun, time.monotonic())
        finish(seen, kafka, topic, writer.journal, stopped_for=round(held, 1), longest_gap=round(gap, 2))


def _acknowledged_after(journal: Journal, begin: float) -> float | None:
    return min((at for at in list(journal.acknowledged.values()) if at > begin), default=None)
