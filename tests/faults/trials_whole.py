"""The whole pipeline on three brokers and three nodes: servers go away under workers and sinks, and every cell is right."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from support.faults import report
from support.faults.trial import Scenario, Trial, run_trial
from support.quorum.brokers import Quorum
from support.quorum.report import SEED

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers, three nodes and a registry of these trials' own."""
    spec = ClusterSpec(brokers=3, nodes=3, broker_heap_mb=384, node_heap_mb=512, ports="any")
    own = LocalCluster(tmp_path_factory.mktemp("whole"), spec)
    own.start()
    yield own
    own.wipe()


def kill_a_broker(t: Trial) -> None:
    """Kill one of the brokers, which leads a third of the partitions, and start it again."""
    _away(t, [t.rng.choice(_all("kafka"))], 12.0, 18.0)


def kill_the_controller(t: Trial) -> None:
    """Kill the broker whose controller is the active one."""
    assert t.cluster is not None
    _away(t, [f"kafka-{Quorum(t.cluster).wait().node}"], 5.0, 15.0)


def kill_two_brokers(t: Trial) -> None:
    """Kill two of three brokers: everything waits."""
    _away(t, t.rng.sample(_all("kafka"), 2), 8.0, 14.0)


def kill_a_node(t: Trial) -> None:
    """Kill one of the nodes: nothing waits."""
    _away(t, [t.rng.choice(_all("cassandra"))], 8.0, 14.0)


def kill_two_nodes(t: Trial) -> None:
    """Kill two of three nodes: the sinks pause and hold their offsets."""
    _away(t, t.rng.sample(_all("cassandra"), 2), 8.0, 14.0)


def freeze_a_node(t: Trial) -> None:
    """Let a node stand still for 20 s."""
    assert t.cluster is not None
    name = t.rng.choice(_all("cassandra"))
    t.wait(0.5, 3.0)
    t.note(f"pause {name}")
    t.cluster.pause(name)
    try:
        t.wait(20.0)
    finally:
        t.note(f"resume {name}")
        t.cluster.resume(name)


SCENARIOS = {
    8: ("SIGKILL one of three brokers", kill_a_broker),
    9: ("SIGKILL two of three brokers", kill_two_brokers),
    10: ("SIGKILL the active controller and its broker", kill_the_controller),
    12: ("SIGKILL one of three nodes", kill_a_node),
    13: ("SIGKILL two of three nodes", kill_two_nodes),
    14: ("one of three nodes stands still for 20 s", freeze_a_node),
}


@pytest.mark.parametrize("row", SCENARIOS)
def test_every_cell_is_right(cluster: LocalCluster, row: int, tmp_path: Path) -> None:
    title, faults = SCENARIOS[row]
    outcome = run_trial(Scenario(row, title, faults, posts=0.0), SEED, cluster.settings, tmp_path, cluster)
    report.append(outcome)
    print(outcome)
    assert not outcome.violations, "\n".join(outcome.violations)


def _all(kind: str) -> list[str]:
    return [f"{kind}-{i}" for i in (1, 2, 3)]


def _away(t: Trial, names: list[str], least: float, most: float) -> None:
    assert t.cluster is not None
    t.wait(0.5, 3.0)
    for name in names:
        t.note(f"kill {name}")
        t.cluster.kill(name)
    try:
        t.wait(least, most)
    finally:
        for name in names:
            t.cluster.start_server(name)
            t.note(f"{name} is back")
