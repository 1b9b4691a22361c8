"""Which ports a cluster's servers get, and the settings that lead clients to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        ClusterError: a port is taken that other servers of the cluster know this one by.
    """
    return _Planner(spec, before, running, picker).all_ports()


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
        clients = [ports[f"kafka-{i}"]["client"] for i in range(1, spec.brokers + 1)]
        settings["kafka"] = {
            "brokers": ",".join(f"{kafka.HOST}:{port}" for port in clients),
            "replication_factor": spec.kafka_replication,
            "min_insync_replicas": spec.kafka_min_insync,
        }
    if spec.registry:
        settings["registry"] = {"url": f"http://{registry.HOST}:{ports['registry']['http']}{registry.API_PATH}"}
    if spec.nodes:
        settings["cassandra"] = {
            "contact_points": ",".join(cassandra.HOSTS[: spec.nodes]),
            "port": ports["cassandra-1"]["native"],
            "replication_factor": min(spec.nodes, 3),
        }
    return settings


@dataclass(frozen=True)
class _Planner:
    spec: ClusterSpec
    before: Mapping[str, Ports]
    running: set[str]
    picker: PortPicker

    def all_ports(self) -> dict[str, Ports]:
        brokers = [f"kafka-{i}" for i in range(1, self.spec.brokers + 1)]
        some_run = any(name in self.running for name in brokers)
        ports = {name: self._own(name, self._of_broker(i), fixed=some_run) for i, name in enumerate(brokers, 1)}
        if self.spec.nodes:
            ports |= self._cassandra()
        if self.spec.registry:
            ports["registry"] = self._own("registry", {"http": 8081, "management": 8082}, fixed=False)
        return ports

    def _of_broker(self, i: int) -> Ports:
        proxied = {"proxied": 9190 + 2 * i, "proxy": 9191 + 2 * i} if self.spec.proxied else {}
        return {"client": 9090 + 2 * i, "controller": 9091 + 2 * i, **proxied}

    def _own(self, name: str, usual: Ports, *, fixed: bool) -> Ports:
        had = self.before.get(name, {})
        if name in self.running:
            return had
        return {
            purpose: self._port(purpose, had.get(purpose), port, kafka.HOST, fixed) for purpose, port in usual.items()
        }

    def _cassandra(self) -> dict[str, Ports]:
        """The native and the storage port are one number at every node's address; JMX is at the first address only."""
        names = [f"cassandra-{i}" for i in range(1, self.spec.nodes + 1)]
        idle = [host for name, host in zip(names, cassandra.HOSTS, strict=False) if name not in self.running]
        had = self.before.get(names[0], {})
        fixed = self.spec.nodes > 1
        shared = {
            purpose: had[purpose]
            if purpose in had and not idle
            else self._port(purpose, had.get(purpose), usual, idle, fixed)
            for purpose, usual in {"native": 9042, "storage": 7000}.items()
        }
        return {
            name: self.before[name]
            if name in self.running
            else {**shared, **self._own(name, {"jmx": 7099 + 100 * i}, fixed=False)}
            for i, name in enumerate(names, 1)
        }

    def _port(self, purpose: str, had: int | None, usual: int, hosts: str | Sequence[str], fixed: bool) -> int:
        hosts = (hosts,) if isinstance(hosts, str) else hosts
        preferred = (usual,) if self.spec.ports == "usual" else ()
        if had is None:
            return self.picker.pick(preferred, hosts)
        if fixed and not is_free(had, hosts):
            raise ClusterError(
                f"the {purpose} port {had} is taken{_by(had)}, and the cluster's other servers know it",
                hint="stop what uses it, or begin anew with --fresh",
            )
        return self.picker.pick((had, *preferred), hosts)


def _by(port: int) -> str:
    holder = listener_of(port)
    return f" by {holder}" if holder else ""
