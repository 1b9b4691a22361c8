"""Three Cassandra nodes, three replicas: what writers and readers at ONE, LOCAL_QUORUM and ALL see when nodes go away."""

import contextlib
import random
import time
from collections.abc import Iterator

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.cluster.cassandra import HOSTS
from support.quorum.asking import KEYS, Asker, Rows, during, prepare_rows
from support.quorum.brokers import within
from support.quorum.report import SEED, Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(500)]

LEVELS = ("ONE", "LOCAL_QUORUM", "ALL")
NODES = (1, 2, 3)
STALL_SECONDS = 3.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes of these trials' own."""
    spec = ClusterSpec(brokers=0, nodes=3, registry=False, node_heap_mb=512, ports="any")
    own = LocalCluster(tmp_path_factory.mktemp("nodes"), spec)
    own.start()
    yield own
    own.wipe()


@pytest.fixture
def rows(cluster: LocalCluster) -> Iterator[Rows]:
    """Rows on all three nodes, all of which run again after the trial."""
    yield prepare_rows(cluster.settings.cassandra)
    for node in NODES:
        cluster.start_server(f"cassandra-{node}")


@pytest.fixture
def rng() -> random.Random:
    """What a trial draws from."""
    return random.Random(SEED)


@contextlib.contextmanager
def asked(rows: Rows) -> Iterator[list[Asker]]:
    """Write and read at every level at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Asker(rows, purpose, level)) for purpose in ("write", "read") for level in LEVELS]  # type: ignore[arg-type]


def finish(seen: Seen, rows: Rows, askers: list[Asker], told: dict[str, object]) -> None:
    """Look for every acknowledged row at quorum, and write the trial down."""
    writers = [a for a in askers if a.purpose == "write"]
    missing = {a.level: rows.missing("LOCAL_QUORUM", [a.key(n) for n in a.journal.acknowledged]) for a in writers}
    seen.events = sum(len(a.journal.acknowledged) for a in writers)
    seen.violations += [f"I2: {n} acknowledged rows of {level} are missing" for level, n in missing.items() if n]
    seen.seen = told | {"missing afterwards": missing}
    seen.write()


@pytest.mark.parametrize("away", [1, 2])
def test_nodes_are_killed(cluster: LocalCluster, rows: Rows, rng: random.Random, away: int) -> None:
    victims = rng.sample(NODES, away)
    seen = Seen(11 + away, f"SIGKILL {away} of 3 nodes", SEED)
    with asked(rows) as askers:
        time.sleep(rng.uniform(3, 5))
        begun = time.monotonic()
        for node in victims:
            cluster.kill(f"cassandra-{node}")
            seen.faults.append(f"kill cassandra-{node}")
        time.sleep(rng.uniform(12, 16))
        ended = time.monotonic()
        for node in victims:
            cluster.start_server(f"cassandra-{node}")
        time.sleep(12)  # the driver tries a node that was away again after at most 10 s
    told = during(askers, begun, ended)
    quorum: dict[str, object] = told["write at LOCAL_QUORUM"]  # type: ignore[assignment]
    if away == 1 and float(str(quorum["longest_gap"])) > STALL_SECONDS:
        seen.violations.append(f"I6: writes at LOCAL_QUORUM stalled: {quorum}")
    if away == 2:
        late = sum(
            at > begun + 3 and at < ended for a in askers if a.level != "ONE" for at in a.journal.acknowledged.values()
        )
        seen.violations += [f"I2: {late} requests above ONE were acknowledged by one node of three"] if late else []
    finish(seen, rows, askers, told)


def test_a_node_stands_still(cluster: LocalCluster, rows: Rows, rng: random.Random) -> None:
    node = rng.choice(NODES)
    seen = Seen(14, "SIGSTOP a node for 20 s", SEED, faults=[f"pause cassandra-{node}"])
    with asked(rows) as askers:
        time.sleep(rng.uniform(3, 5))
        begun = time.monotonic()
        cluster.pause(f"cassandra-{node}")
        time.sleep(20)
        cluster.resume(f"cassandra-{node}")
        ended = time.monotonic()
        time.sleep(12)
    told = during(askers, begun, ended)
    finish(seen, rows, askers, told)


def test_a_node_that_was_away_answers_older_rows_at_one_and_not_at_quorum(
    cluster: LocalCluster, rows: Rows, rng: random.Random
) -> None:
    node = rng.choice(NODES)
    seen = Seen(12, "rows that change while a node is away", SEED, faults=[f"kill cassandra-{node}"])
    cluster.kill(f"cassandra-{node}")
    time.sleep(2)
    acknowledged = rows.write("LOCAL_QUORUM", range(KEYS), 1)
    cluster.start_server(f"cassandra-{node}")
    begun, host = time.monotonic(), HOSTS[node - 1]
    at_one = rows.older_at(host, "ONE", range(KEYS), 1)
    # The same rows again, newest first: a read at quorum repairs what it finds.
    hints = within(120, lambda: (time.monotonic() - begun) if rows.older_at(host, "ONE", range(KEYS), 1) == 0 else None)
    at_quorum = rows.older_at(host, "LOCAL_QUORUM", range(KEYS), 1)
    seen.events = acknowledged
    seen.violations += [f"I2: {at_quorum} older rows at quorum"] if at_quorum else []
    seen.seen = {"older at ONE": at_one, "older at LOCAL_QUORUM": at_quorum, "hints delivered after": round(hints, 1)}
    seen.write()


def test_a_row_acknowledged_at_one_is_away_with_the_only_node_that_has_it(
    cluster: LocalCluster, rows: Rows, rng: random.Random
) -> None:
    node, *others = rng.sample(NODES, 3)
    seen = Seen(13, "rows acknowledged at ONE by a node that then dies", SEED)
    seen.faults = [f"kill cassandra-{n}" for n in (*others, node)]
    for other in others:
        cluster.kill(f"cassandra-{other}")
    time.sleep(3)
    acknowledged = rows.write("ONE", range(KEYS), 1)
    cluster.kill(f"cassandra-{node}")
    for other in others:
        cluster.start_server(f"cassandra-{other}")
    away = rows.older_at(HOSTS[others[0] - 1], "LOCAL_QUORUM", range(KEYS), 1)
    cluster.start_server(f"cassandra-{node}")
    begun, host = time.monotonic(), HOSTS[others[0] - 1]
    back = within(120, lambda: (time.monotonic() - begun) if rows.older_at(host, "ONE", range(KEYS), 1) == 0 else None)
    seen.events = acknowledged
    seen.seen = {
        "acknowledged at ONE": acknowledged,
        "older at LOCAL_QUORUM": away,
        "all there again after": round(back, 1),
    }
    seen.write()
