import os
import socket
from collections.abc import Iterator

import pytest

from fluvial.cluster.plan import moved, plan_ports, settings_of
from fluvial.cluster.ports import PortPicker, is_free, listener_of
from fluvial.cluster.spec import ClusterSpec
from fluvial.errors import ClusterError
from fluvial.settings import Settings

THREE = ClusterSpec(brokers=3, nodes=3)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on at 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(taken: int) -> None:
    assert not is_free(taken)
    assert is_free(taken, ["127.0.0.2"])
    assert not is_free(taken, ["127.0.0.2", "127.0.0.1"])


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(ClusterError, match=r"192\.0\.2\.1 is not an address"):
        is_free(20_000, ["192.0.2.1"])


def test_the_wanted_port_is_picked_when_it_is_free_and_another_when_it_is_taken(taken: int) -> None:
    free = PortPicker(seed=1).pick()
    assert PortPicker(seed=2).pick([free]) == free
    assert PortPicker(seed=2).pick([taken]) != taken


def test_no_port_is_handed_out_twice() -> None:
    picker = PortPicker(seed=3)
    first = picker.pick()
    assert picker.pick([first]) != first


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="needs /proc")
def test_the_listener_of_a_port_is_named(taken: int) -> None:
    assert listener_of(taken).startswith(f"pid {os.getpid()} ")
    assert listener_of(1) == ""


def test_a_restart_keeps_every_port() -> None:
    before = plan_ports(THREE, {}, set(), PortPicker(seed=4))
    assert plan_ports(THREE, before, set(), PortPicker(seed=5)) == before
    assert moved(before, before) == []


def test_all_ports_of_a_cluster_differ() -> None:
    ports = plan_ports(THREE, {}, set(), PortPicker(seed=6))
    own = [p for name, by in ports.items() for purpose, p in by.items() if purpose not in ("native", "storage")]
    shared = {(by["native"], by["storage"]) for name, by in ports.items() if name.startswith("cassandra")}
    assert len(shared) == 1
    every = [*own, *shared.pop()]
    assert len(set(every)) == len(every)


def test_random_ports_are_asked_for_by_the_spec() -> None:
    spec = ClusterSpec(ports="any")
    first, second = (plan_ports(spec, {}, set(), PortPicker(seed=s)) for s in (15, 16))
    every = [p for ports in (first, second) for by in ports.values() for p in by.values()]
    assert len(set(every)) == len(every)
    assert plan_ports(spec, first, set(), PortPicker(seed=17)) == first


def test_a_single_broker_moves_from_a_taken_port_and_says_so(taken: int) -> None:
    spec = ClusterSpec(nodes=0, registry=False)
    before = {"kafka-1": {"client": taken, "controller": PortPicker(seed=7).pick()}}
    after = plan_ports(spec, before, set(), PortPicker(seed=8))
    assert after["kafka-1"]["client"] != taken
    assert after["kafka-1"]["controller"] == before["kafka-1"]["controller"]
    (change,) = moved(before, after)
    assert f"client port {taken} is taken by pid {os.getpid()}" in change


def test_a_broker_does_not_move_away_from_running_ones(taken: int) -> None:
    spec = ClusterSpec(brokers=3, nodes=0, registry=False)
    before = {**plan_ports(spec, {}, set(), PortPicker(seed=9))}
    before["kafka-2"] = {**before["kafka-2"], "controller": taken}
    with pytest.raises(ClusterError, match=f"controller port {taken} is taken"):
        plan_ports(spec, before, {"kafka-1", "kafka-3"}, PortPicker(seed=9))


def test_three_nodes_never_change_the_ports_they_know_one_another_by(taken: int) -> None:
    spec = ClusterSpec(brokers=0, nodes=3, registry=False)
    before = plan_ports(spec, {}, set(), PortPicker(seed=10))
    changed = {name: {**ports, "storage": taken} for name, ports in before.items()}
    with pytest.raises(ClusterError, match=f"storage port {taken} is taken"):
        plan_ports(spec, changed, set(), PortPicker(seed=11))


def test_running_servers_hold_their_ports_though_these_are_taken_by_them(taken: int) -> None:
    spec = ClusterSpec(nodes=1, registry=False)
    before = {
        "kafka-1": {"client": taken, "controller": 20_001},
        "cassandra-1": {"native": taken, "storage": 20_002, "jmx": 20_003},
    }
    assert plan_ports(spec, before, {"kafka-1", "cassandra-1"}, PortPicker(seed=12)) == before


def test_the_settings_lead_to_every_server_and_are_valid() -> None:
    ports = plan_ports(THREE, {}, set(), PortPicker(seed=13))
    settings = Settings.model_validate(settings_of(THREE, ports))
    assert settings.kafka.brokers == ",".join(f"127.0.0.1:{ports[f'kafka-{i}']['client']}" for i in (1, 2, 3))
    assert (settings.kafka.replication_factor, settings.kafka.min_insync_replicas) == (3, 2)
    assert settings.cassandra.contact_points == "127.0.0.1,127.0.0.2,127.0.0.3"
    assert settings.cassandra.replication_factor == 3
    assert settings.registry.url == f"http://127.0.0.1:{ports['registry']['http']}/apis/ccompat/v7"


def test_the_settings_leave_out_what_the_cluster_does_not_have() -> None:
    spec = ClusterSpec(nodes=0, registry=False)
    assert set(settings_of(spec, plan_ports(spec, {}, set(), PortPicker(seed=14)))) == {"kafka"}


@pytest.mark.parametrize(("brokers", "nodes"), [(2, 1), (1, 2), (-1, 1)])
def test_a_size_without_a_majority_is_refused(brokers: int, nodes: int) -> None:
    with pytest.raises(ClusterError, match="1 or 3"):
        ClusterSpec(brokers=brokers, nodes=nodes)
