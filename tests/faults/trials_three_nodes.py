"""Three Cassandra nodes, three replicas: what writers and readers at ONE, LOCAL_QUORUM and ALL see when nodes go away."""

import contextlib
import random
import time
from collections.abc import Iterator

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.cluster.cassandra import HOSTS
from fluvial.settings import CassandraSettings
from support.quorum.asking import KEYS, Asker, create_table, missing_rows, older_at, write_rows
from support.quorum.brokers import within
from support.quorum.report import Seen

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(500)]

LEVELS = ("ONE", "LOCAL_QUORUM", "ALL")
NODES = (1, 2, 3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes of these trials' own."""
    spec = ClusterSpec(brokers=0, nodes=3, registry=False, node_heap_mb=512, ports="any")
    own = LocalCluster(tmp_path_factory.mktemp("nodes"), spec)
    own.start()
    yield own
    own.wipe()


@pytest.fixture
def cassandra(cluster: LocalCluster) -> Iterator[CassandraSettings]:
    """A table on all three nodes; all run again after the trial."""
    yield create_table(cluster.settings.cassandra)
    for node in NODES:
        cluster.start_server(f"cassandra-{node}")


@pytest.fixture(params=[1])
def rng(request: pytest.FixtureRequest) -> random.Random:
    """What a trial draws from."""
    found = random.Random(request.param)
    found.number = request.param  # type: ignore[attr-defined]
    return found


@contextlib.contextmanager
def asked(cassandra: CassandraSettings) -> Iterator[list[Asker]]:
    """Write and read at every level at once."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Asker(cassandra, purpose, level)) for purpose in ("write", "read") for level in LEVELS
        ]  # type: ignore[arg-type]


def during(askers: list[Asker], begin: float, end: float) -> dict[str, object]:
    """Return what each asker saw of the requests of a time."""
    seen: dict[str, object] = {}
    for a in askers:
        j = a.journal
        asked = [n for n, at in j.sent.items() if begin <= at < end]
        errors: dict[str, int] = {}
        for n in asked:
            if n in j.refused:
                errors[j.refused[n][1]] = errors.get(j.refused[n][1], 0) + 1
        waits = sorted(j.acknowledged[n] - j.sent[n] for n in asked if n in j.acknowledged)
        seen[a.name] = {
            "asked": len(asked),
            "answered": len(waits),
            "errors": errors,
            "longest_gap": round(j.longest_gap(begin, end), 3),
            "longest_wait": round(waits[-1], 3) if waits else None,
        }
    return seen


def finish(seen: Seen, cassandra: CassandraSettings, askers: list[Asker], told: dict[str, object]) -> None:
    """Look for every acknowledged row at quorum, and write the trial down."""
    writers = [a for a in askers if a.purpose == "write"]
    missing = {a.level: missing_rows(cassandra, "LOCAL_QUORUM", a) for a in writers}
    seen.events = sum(len(a.journal.acknowledged) for a in writers)
    seen.violations += [f"I2: {n} acknowledged rows of {level} are missing" for level, n in missing.items() if n]
    seen.seen = told | {"missing afterwards": missing}
    seen.write()


@pytest.mark.parametrize("away", [1, 2])
def test_nodes_are_killed(cluster: LocalCluster, cassandra: CassandraSettings, rng: random.Random, away: int) -> None:
    victims = rng.sample(NODES, away)
    seen = Seen(11 + away, f"SIGKILL {away} of 3 nodes", rng.number)  # type: ignore[attr-defined]
    with asked(cassandra) as askers:
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
    if away == 1 and float(str(quorum["longest_gap"])) > 1.0:
        seen.violations.append(f"I6: writes at LOCAL_QUORUM stalled: {quorum}")
    if away == 2:
        late = sum(
            at > begun + 3 and at < ended for a in askers if a.level != "ONE" for at in a.journal.acknowledged.values()
        )
        seen.violations += [f"I2: {late} requests above ONE were acknowledged by one node of three"] if late else []
    finish(seen, cassandra, askers, told)


def test_a_node_stands_still(cluster: LocalCluster, cassandra: CassandraSettings, rng: random.Random) -> None:
    node = rng.choice(NODES)
    seen = Seen(14, "SIGSTOP a node for 20 s", rng.number, faults=[f"pause cassandra-{node}"])  # type: ignore[attr-defined]
    with asked(cassandra) as askers:
        time.sleep(rng.uniform(3, 5))
        begun = time.monotonic()
        cluster.pause(f"cassandra-{node}")
        time.sleep(20)
        cluster.resume(f"cassandra-{node}")
        ended = time.monotonic()
        time.sleep(12)
        told = during(askers, begun, ended)
    finish(seen, cassandra, askers, told)


def test_a_node_that_was_away_answers_older_rows_at_one_and_not_at_quorum(
    cluster: LocalCluster, cassandra: CassandraSettings, rng: random.Random
) -> None:
    node = rng.choice(NODES)
    seen = Seen(12, "rows that change while a node is away", rng.number, faults=[f"kill cassandra-{node}"])  # type: ignore[attr-defined]
    cluster.kill(f"cassandra-{node}")
    time.sleep(2)
    acknowledged = write_rows(cassandra, "LOCAL_QUORUM", range(KEYS), 1)
    cluster.start_server(f"cassandra-{node}")
    begun, host = time.monotonic(), HOSTS[node - 1]
    at_one = older_at(cassandra, host, "ONE", range(KEYS), 1)
    # The same rows again, newest first: a read at quorum repairs what it finds.
    hints = within(
        120, lambda: (time.monotonic() - begun) if older_at(cassandra, host, "ONE", range(KEYS), 1) == 0 else None
    )
    at_quorum = older_at(cassandra, host, "LOCAL_QUORUM", range(KEYS), 1)
    seen.events = acknowledged
    seen.violations += [f"I2: {at_quorum} older rows at quorum"] if at_quorum else []
    seen.seen = {"older at ONE": at_one, "older at LOCAL_QUORUM": at_quorum, "hints delivered after": round(hints, 1)}
    seen.write()


def test_a_row_acknowledged_at_one_is_away_with_the_only_node_that_has_it(
    cluster: LocalCluster, cassandra: CassandraSettings, rng: random.Random
) -> None:
    node, *others = rng.sample(NODES, 3)
    seen = Seen(13, "rows acknowledged at ONE by a node that then dies", rng.number)  # type: ignore[attr-defined]
    seen.faults = [f"kill cassandra-{n}" for n in (*others, node)]
    for other in others:
        cluster.kill(f"cassandra-{other}")
    time.sleep(3)
    acknowledged = write_rows(cassandra, "ONE", range(KEYS), 1)
    cluster.kill(f"cassandra-{node}")
    for other in others:
        cluster.start_server(f"cassandra-{other}")
    away = older_at(cassandra, HOSTS[others[0] - 1], "LOCAL_QUORUM", range(KEYS), 1)
    cluster.start_server(f"cassandra-{node}")
    begun, host = time.monotonic(), HOSTS[others[0] - 1]
    back = within(
        120, lambda: (time.monotonic() - begun) if older_at(cassandra, host, "ONE", range(KEYS), 1) == 0 else None
    )
    seen.events = acknowledged
    seen.seen = {
        "acknowledged at ONE": acknowledged,
        "older at LOCAL_QUORUM": away,
        "all there again after": round(back, 1),
    }
    seen.write()
