"""Which ports a cluster's servers get, and the settings that lead clients to them."""

from collections.abc import Mapping
from typing import Any

from fluvial.cluster import cassandra, kafka, registry
from fluvial.cluster.ports import PortPicker, is_free, listener_of
from fluvial.cluster.spec import ClusterSpec
from fluvial.errors import ClusterError

Ports = Mapping[str, int]


def plan_ports(
    spec: ClusterSpec, before: Mapping[str, Ports], running: set[str], picker: PortPicker
) -> dict[str, Ports]:
    """Return the ports of each server, by purpose: those it had while they are free, else the usual ones, else any.

    ``before`` are the ports of the last run; the servers in ``running`` hold theirs.

    Raises:
        ClusterError: a port that cannot change any more is taken.
    """
    ports: dict[str, Ports] = {}
    for i in range(1, spec.brokers + 1):
        usual = {"client": 9090 + 2 * i, "controller": 9091 + 2 * i}
        ports[f"kafka-{i}"] = _pick(f"kafka-{i}", usual, before, running, picker)
    if spec.nodes:
        ports |= _cassandra_ports(spec, before, running, picker)
    if spec.registry:
        ports["registry"] = _pick("registry", {"http": 8081, "management": 8082}, before, running, picker)
    return ports


def moved(before: Mapping[str, Ports], after: Mapping[str, Ports]) -> list[str]:
    """Describe the ports that are others than in the last run."""
    return [
        f"{name}: {purpose} port {old} is taken{_by(old)}, now {after[name][purpose]}"
        for name in after
        for purpose, old in before.get(name, {}).items()
        if after[name].get(purpose, old) != old
    ]


def settings_of(spec: ClusterSpec, ports: Mapping[str, Ports]) -> dict[str, dict[str, Any]]:
    """Return the sections of `fluvial.settings.Settings` for clients of the cluster."""
    settings: dict[str, dict[str, Any]] = {}
    if spec.brokers:
        settings["kafka"] = {
            "brokers": brokers_of(spec, ports),
            "replication_factor": spec.kafka_replication,
            "min_insync_replicas": spec.kafka_min_insync,
        }
    if spec.registry:
        settings["registry"] = {"url": f"http://{registry.HOST}:{ports['registry']['http']}{registry.API_PATH}"}
    if spec.nodes:
        settings["cassandra"] = {
            "contact_points": ",".join(cassandra.HOSTS[: spec.nodes]),
            "port": ports["cassandra-1"]["native"],
            "replication_factor": spec.nodes,
        }
    return settings


def brokers_of(spec: ClusterSpec, ports: Mapping[str, Ports]) -> str:
    """Return the bootstrap servers."""
    return ",".join(f"{kafka.HOST}:{ports[f'kafka-{i}']['client']}" for i in range(1, spec.brokers + 1))


def _pick(name: str, usual: Ports, before: Mapping[str, Ports], running: set[str], picker: PortPicker) -> Ports:
    had = before.get(name, {})
    if name in running:
        return had
    return {
        purpose: picker.pick((*((had[purpose],) if purpose in had else ()), port)) for purpose, port in usual.items()
    }


def _cassandra_ports(
    spec: ClusterSpec, before: Mapping[str, Ports], running: set[str], picker: PortPicker
) -> dict[str, Ports]:
    """The native and the storage port are one number at every node's address; JMX listens at the first address for all."""
    names = [f"cassandra-{i}" for i in range(1, spec.nodes + 1)]
    idle_hosts = [host for name, host in zip(names, cassandra.HOSTS, strict=False) if name not in running]
    shared = {}
    for purpose, usual in {"native": 9042, "storage": 7000}.items():
        old = before.get(names[0], {}).get(purpose)
        if old is None:
            shared[purpose] = picker.pick((usual,), idle_hosts)
        elif is_free(old, idle_hosts):
            shared[purpose] = old
        elif spec.nodes > 1 or len(idle_hosts) < spec.nodes:
            # The nodes know one another by these, and the running ones hold them.
            raise ClusterError(
                f"Cassandra's {purpose} port {old} is taken{_by(old)}",
                hint="stop what uses it, or begin anew with --fresh",
            )
        else:
            shared[purpose] = picker.pick((usual,), idle_hosts)
    return {
        name: before[name]
        if name in running
        else {**shared, **_pick(name, {"jmx": 7099 + 100 * i}, before, running, picker)}
        for i, name in enumerate(names, 1)
    }


def _by(port: int) -> str:
    holder = listener_of(port)
    return f" by {holder}" if holder else ""
