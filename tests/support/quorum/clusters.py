"""Three brokers, or three nodes, of a trial's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster

BROKERS = ClusterSpec(brokers=3, nodes=0, registry=False, broker_heap_mb=384, ports="any")
NODES = ClusterSpec(brokers=0, nodes=3, registry=False, node_heap_mb=512, ports="any")


@contextmanager
def own_cluster(folders: pytest.TempPathFactory, spec: ClusterSpec) -> Iterator[LocalCluster]:
    """Run a cluster, and leave nothing of it."""
    own = LocalCluster(folders.mktemp("nodes" if spec.nodes else "brokers"), spec)
    own.start()
    try:
        yield own
    finally:
        own.wipe()
