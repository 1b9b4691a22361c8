"""From a spec, its ports and the locked jars to the servers."""

from collections.abc import Collection, Mapping
from pathlib import Path

from fluvial.cluster import artifacts
from fluvial.cluster.cassandra import CassandraNode
from fluvial.cluster.java import find_java
from fluvial.cluster.kafka import KafkaBroker
from fluvial.cluster.progress import Report
from fluvial.cluster.registry import SchemaRegistry
from fluvial.cluster.server import Server
from fluvial.cluster.state import ClusterState


def assemble(state: ClusterState, names: Collection[str], directory: Path, report: Report) -> dict[str, Server]:
    """Return the servers ``names`` of the cluster, with Java and the jars at hand (fetched when they are missing).

    Raises:
        ClusterError: Java or a jar cannot be had.
    """
    java, lock = find_java(), artifacts.read_lock()
    groups = {name.partition("-")[0] for name in names}
    wanted = [a for group in ("kafka", "cassandra") if group in groups for a in lock[group]]
    found = dict(zip(wanted, artifacts.resolve(wanted, report), strict=True))
    ports = {name: server.ports for name, server in state.servers.items()}
    servers: list[Server] = []
    if "kafka" in groups:
        servers += _brokers(state, ports, directory, java, tuple(found[a] for a in lock["kafka"]))
    if "cassandra" in groups:
        servers += _nodes(state, ports, directory, java, tuple(found[a] for a in lock["cassandra"]))
    if "registry" in groups:
        servers.append(
            SchemaRegistry(
                home=artifacts.unpack(lock["registry"][0], report),
                folder=directory / "registry",
                port=ports["registry"]["http"],
                management_port=ports["registry"]["management"],
                java=java,
                heap_mb=state.spec.registry_heap_mb,
            )
        )
    return {server.name: server for server in servers if server.name in names}


def _brokers(
    state: ClusterState, ports: Mapping[str, Mapping[str, int]], directory: Path, java: Path, jars: tuple[Path, ...]
) -> list[KafkaBroker]:
    ids = range(1, state.spec.brokers + 1)
    return [
        KafkaBroker(
            node_id=i,
            folder=directory / f"kafka-{i}",
            port=ports[f"kafka-{i}"]["client"],
            controllers=tuple(ports[f"kafka-{n}"]["controller"] for n in ids),
            cluster_id=state.kafka_cluster_id,
            java=java,
            jars=jars,
            heap_mb=state.spec.broker_heap_mb,
            proxied=(ports[f"kafka-{i}"]["proxied"], ports[f"kafka-{i}"]["proxy"]) if state.spec.proxied else None,
        )
        for i in ids
    ]


def _nodes(
    state: ClusterState, ports: Mapping[str, Mapping[str, int]], directory: Path, java: Path, jars: tuple[Path, ...]
) -> list[CassandraNode]:
    return [
        CassandraNode(
            number=i,
            nodes=state.spec.nodes,
            folder=directory / f"cassandra-{i}",
            port=ports[f"cassandra-{i}"]["native"],
            storage_port=ports[f"cassandra-{i}"]["storage"],
            jmx_port=ports[f"cassandra-{i}"]["jmx"],
            java=java,
            jars=jars,
            heap_mb=state.spec.node_heap_mb,
            proxied=state.spec.proxied and state.spec.nodes > 1,
        )
        for i in range(1, state.spec.nodes + 1)
    ]
