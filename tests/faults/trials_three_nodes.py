"""Three Cassandra nodes, three replicas: what writers and readers at ONE, LOCAL_QUORUM and ALL see when nodes go away."""

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

from fluvial.cassandra import Purpose
from fluvial.cluster import LocalCluster
from fluvial.cluster.cassandra import HOSTS
from fluvial.settings import Consistency
from support.quorum import clusters
from support.quorum.asking import KEYS, Asker, Rows, during, prepare_rows
from support.quorum.brokers import within
from support.quorum.clusters import own_cluster
from support.quorum.report import SEED, Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(1500)]

PURPOSES: tuple[Purpose, ...] = ("write", "read")
LEVELS: tuple[Consistency, ...] = ("ONE", "LOCAL_QUORUM", "ALL")
STALL_SECONDS = 3.0
OLD, NEW = range(KEYS // 2), range(KEYS // 2, KEYS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes of these trials' own."""
    with own_cluster(tmp_path_factory, clusters.NODES) as own:
        yield own


@contextlib.contextmanager
def asked(rows: Rows) -> Iterator[list[Asker]]:
    """Write and read at every level at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Asker(rows, purpose, level)) for purpose in PURPOSES for level in LEVELS]


def test_nodes_go_one_by_one_and_come_back(cluster: LocalCluster) -> None:
    """One stands still, one is killed, a second one too, then the last; then they come back, one by one."""
    rng = random.Random(SEED)
    a, b, c = rng.sample((1, 2, 3), 3)
    rows = prepare_rows(cluster.settings.cassandra)
    times: dict[str, tuple[float, float]] = {}
    with asked(rows) as askers:
        time.sleep(3)
        with timed(times, "all are there"):
            time.sleep(rng.uniform(4, 6))
        cluster.pause(f"cassandra-{a}")
        with timed(times, "one stands still"):
            time.sleep(20)
        cluster.resume(f"cassandra-{a}")
        time.sleep(12)  # the driver looks for a node that was away after at most 10 s
        stages = {stage: during(askers, *span) for stage, span in times.items()}
        _write(14, "SIGSTOP a node for 20 s", [f"pause cassandra-{a}"], askers, stages)
        with timed(times, "one is killed"):
            cluster.kill(f"cassandra-{a}")
            time.sleep(rng.uniform(12, 15))
        changed = rows.write("LOCAL_QUORUM", OLD, 1, [HOSTS[b - 1], HOSTS[c - 1]])
        seen = during(askers, *times["one is killed"])
        stalled = float(str(seen["write at LOCAL_QUORUM"]["longest_gap"]))
        violations = [f"I6: writes at LOCAL_QUORUM stalled for {stalled} s"] if stalled > STALL_SECONDS else []
        _write(12, "SIGKILL 1 of 3 nodes", [f"kill cassandra-{a}"], askers, seen, violations)
        with timed(times, "two are killed"):
            cluster.kill(f"cassandra-{b}")
            time.sleep(rng.uniform(12, 15))
        alone = rows.write("ONE", NEW, 1, [HOSTS[c - 1]])
        begin, end = times["two are killed"]
        late = sum(x.journal.acknowledged_between(begin + 2, end) for x in askers if x.level != "ONE")
        violations += [f"I2: {late} requests above ONE were answered by one node of three"] if late else []
        seen = during(askers, begin, end)
        _write(13, "SIGKILL 2 of 3 nodes", [f"kill cassandra-{b}"], askers, seen, violations)
        cluster.kill(f"cassandra-{c}")

    cluster.start_server(f"cassandra-{b}")
    gone = rows.older_at(HOSTS[b - 1], "ONE", NEW, 1)
    cluster.start_server(f"cassandra-{a}")
    some, others = OLD[: len(OLD) // 2], OLD[len(OLD) // 2 :]  # a read at quorum repairs what it finds
    older = rows.older_at(HOSTS[a - 1], "ONE", some, 1)
    at_quorum = rows.older_at(HOSTS[a - 1], "LOCAL_QUORUM", others, 1)
    cluster.start_server(f"cassandra-{c}")
    back = time.monotonic()
    within(300, lambda: rows.older_at(HOSTS[a - 1], "ONE", range(KEYS), 1) == 0 or None, 1.0)
    healed = time.monotonic() - back
    writers = [asker for asker in askers if asker.purpose == "write"]
    missing = {w.level: rows.missing("LOCAL_QUORUM", [w.key(n) for n in w.journal.acknowledged]) for w in writers}
    violations += [f"I2: {n} acknowledged rows of {level} are missing" for level, n in missing.items() if n]
    violations += [f"I2: {at_quorum} older rows at quorum"] if at_quorum else []
    returned = {
        "changed at LOCAL_QUORUM while one was away": changed, "of 250, older there at ONE": older,
        "of 250, older there at LOCAL_QUORUM": at_quorum, "acknowledged at ONE by the last": alone,
        "of these not there while it was away": gone, "healed after": round(healed, 1), "missing afterwards": missing,
    }  # fmt: skip
    _write(13, "three nodes come back", [f"kill cassandra-{c}"], askers, returned, violations)
    assert not violations


@contextlib.contextmanager
def timed(times: dict[str, tuple[float, float]], stage: str) -> Iterator[None]:
    """Note when a stage begins and ends."""
    begin = time.monotonic()
    yield
    times[stage] = begin, time.monotonic()


def _write(
    row: int,
    title: str,
    faults: list[str],
    askers: list[Asker],
    seen: Mapping[str, object],
    violations: Sequence[str] = (),
) -> None:
    events = sum(len(a.journal.acknowledged) for a in askers if a.purpose == "write")
    Seen(row, title, SEED, events, faults=faults, violations=list(violations), seen=seen).record()
