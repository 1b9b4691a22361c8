"""Proxies before every server of a proxied cluster: what other servers send to one of them can be cut off."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.cluster.cassandra import HOSTS, PROXY_HOSTS
from fluvial.cluster.plan import plan_ports
from fluvial.cluster.ports import PortPicker
from fluvial.cluster.state import ClusterState, ServerState, new_kafka_cluster_id, write_state
from support.proxy import Proxy


@contextmanager
def linked_cluster(directory: Path, spec: ClusterSpec) -> Iterator[tuple[LocalCluster, dict[str, Proxy]]]:
    """Start a cluster whose servers reach one another through proxies."""
    cluster = LocalCluster(directory, spec)
    ports = plan_ports(spec, {}, set(), PortPicker())
    state = ClusterState(spec, new_kafka_cluster_id(), {name: ServerState(p) for name, p in ports.items()})
    write_state(cluster.state_file, state)
    with ExitStack() as stack:
        stack.callback(cluster.wipe)
        proxies: dict[str, Proxy] = {}
        # Nodes look for one another from the start; a broker's proxy has a port that must be free until then.
        for name, p in ports.items():
            if "storage" in p:
                i = int(name[-1]) - 1
                proxies[name] = stack.enter_context(Proxy((HOSTS[i], p["storage"]), p["storage"], PROXY_HOSTS[i]))
        cluster.start()
        for server in cluster.status():
            if "proxied" in server.ports:
                proxy = Proxy(("127.0.0.1", server.ports["proxied"]), server.ports["proxy"])
                proxies[server.name] = stack.enter_context(proxy)
        yield cluster, proxies
