"""Cuts between servers: a broker that its followers do not reach, a node that hears nothing; clients reach all of them."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.cluster.cassandra import HOSTS
from support.proxy import Proxy
from support.quorum.asking import KEYS, Asker, during, prepare_rows
from support.quorum.brokers import in_sync, placed_topic, read_log, whole, within
from support.quorum.links import linked_cluster
from support.quorum.producing import Writer, compare
from support.quorum.report import Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(500)]

# A leader drops followers that have not read for replica.lag.time.max.ms (30 s), and looks for them every 15 s.
CUT_SECONDS = 75.0


@pytest.fixture
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, dict[str, Proxy]]]:
    """Three brokers with proxies between them."""
    spec = ClusterSpec(brokers=3, nodes=0, registry=False, broker_heap_mb=384, ports="any", proxied=True)
    with linked_cluster(tmp_path_factory.mktemp("brokers"), spec) as found:
        yield found


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, dict[str, Proxy]]]:
    """Three nodes with proxies between them."""
    spec = ClusterSpec(brokers=0, nodes=3, registry=False, node_heap_mb=512, ports="any", proxied=True)
    with linked_cluster(tmp_path_factory.mktemp("nodes"), spec) as found:
        yield found


def test_a_leader_that_its_followers_do_not_reach(brokers: tuple[LocalCluster, dict[str, Proxy]]) -> None:
    """It stays the leader, for it reaches the controller; whether it acknowledges is min.insync.replicas' choice."""
    cluster, proxies = brokers
    kafka = cluster.settings.kafka
    with contextlib.ExitStack() as stack:
        topics = {n: stack.enter_context(placed_topic(kafka, [[1, 2, 3]], **{"min.insync.replicas": n})) for n in "12"}
        with contextlib.ExitStack() as writing:
            writers = {n: writing.enter_context(Writer(kafka, t, 1, rate=200)) for n, t in topics.items()}
            time.sleep(3)
            begun = time.monotonic()
            proxies["kafka-1"].cut()
            within(CUT_SECONDS - 5, lambda: in_sync(kafka, topics["1"]) == [[1]] or None)
            alone = time.monotonic()
            time.sleep(max(3.0, begun + CUT_SECONDS - time.monotonic()))
            mended = time.monotonic()
            acknowledged = {n: w.journal.acknowledged_between(alone + 1, mended) for n, w in writers.items()}
            proxies["kafka-1"].mend()
            time.sleep(10)
        for n, topic in topics.items():
            within(90, lambda topic=topic: whole(kafka, topic) or None)
            journal = writers[n].journal
            found = compare(journal, read_log(kafka, topic, 1))
            seen = Seen(15, f"cut between a leader and its followers, min.insync.replicas={n}", 1, found.acknowledged)
            seen.faults = [f"cut to kafka-1 for {mended - begun:.0f} s"]
            seen.violations = found.violations(once=not journal.refused)
            if n == "2" and acknowledged[n]:
                seen.violations.append(f"I1: {acknowledged[n]} records were acknowledged by one broker of three")
            seen.seen = {
                "alone_after": round(alone - begun, 1), "acknowledged_alone": acknowledged[n],
                "longest_gap": round(journal.longest_gap(begun, time.monotonic() - 10), 1),
                "refused": dict(journal.errors()), "missing": found.missing, "repeated": found.repeated,
            }  # fmt: skip
            seen.write()


def test_a_node_that_hears_nothing_from_the_others(nodes: tuple[LocalCluster, dict[str, Proxy]]) -> None:
    """Clients who ask it get an answer at ONE, an old one, and an error at quorum; others notice nothing at quorum."""
    cluster, proxies = nodes
    rows = prepare_rows(cluster.settings.cassandra)
    askers = [Asker(rows, purpose, level) for purpose in ("write", "read") for level in ("ONE", "LOCAL_QUORUM", "ALL")]
    with contextlib.ExitStack() as stack:
        for asker in askers:
            stack.enter_context(asker)
        time.sleep(4)
        begun = time.monotonic()
        proxies["cassandra-3"].cut()
        time.sleep(25)
        others = rows.write("LOCAL_QUORUM", range(KEYS), 1, hosts=HOSTS[:2])
        older = rows.older_at(HOSTS[2], "ONE", range(KEYS), 1)
        refused = rows.refused_at(HOSTS[2], "LOCAL_QUORUM", range(20))
        ended = time.monotonic()
        proxies["cassandra-3"].mend()
        mended = time.monotonic()
        healed = within(120, lambda: (rows.older_at(HOSTS[2], "ONE", range(KEYS), 1) == 0 and time.monotonic()) or None)
        time.sleep(5)
    writers = [a for a in askers if a.purpose == "write"]
    missing = {a.level: rows.missing("LOCAL_QUORUM", [a.key(n) for n in a.journal.acknowledged]) for a in writers}
    seen = Seen(15, "cut between a node and the two others", 1, sum(len(a.journal.acknowledged) for a in writers))
    seen.faults = [f"cut to cassandra-3 for {ended - begun:.0f} s"]
    seen.violations = [f"I2: {n} acknowledged rows of {level} are missing" for level, n in missing.items() if n]
    seen.seen = during(askers, begun, ended) | {
        "written at LOCAL_QUORUM through the others": others, "older at ONE at the node that is cut off": older,
        "refused there at LOCAL_QUORUM, of 20": refused, "healed after": round(healed - mended, 1),
        "missing afterwards": missing,
    }  # fmt: skip
    seen.write()
