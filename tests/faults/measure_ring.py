"""Measure how many keys move when a Cassandra node joins: real nodes, one after the other, and the ring they agree on.

    python tests/faults/measure_ring.py [--nodes 4] [--keys 100000]

Prints the table of docs/explanation/consistency-and-the-ring.md. Takes about two minutes and 1.2 GB per node.
"""

import argparse
import sys
import tempfile
import time
import zlib
from pathlib import Path

from fluvial.cassandra import connected
from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.settings import CassandraSettings

FACTORS = (1, 2, 3)


def main() -> int:
    """Let the ring grow from one node, and print what moved at each step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=4, choices=(3, 4))
    parser.add_argument("--keys", type=int, default=100_000)
    asked = parser.parse_args()
    keys = [b"sensor-%06d" % i for i in range(asked.keys)]
    shards = [zlib.crc32(k) for k in keys]
    print("| nodes | keys per node | moved, RF 1 | replicas moved, RF 2 | RF 3 | 1 / nodes | moved by `hash % nodes` |")
    print("|---|---|---|---|---|---|---|")
    before: dict[int, list[frozenset[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        spec = ClusterSpec(brokers=0, nodes=asked.nodes, registry=False, node_heap_mb=512, ports="any")
        cluster = LocalCluster(Path(folder), spec)
        try:
            for n in range(1, asked.nodes + 1):
                begun = time.monotonic()
                cluster.start_server(f"cassandra-{n}")
                print(f"node {n} joined in {time.monotonic() - begun:.0f} s", file=sys.stderr)
                now = _replicas(cluster.settings.cassandra, n, keys)
                print(_line(n, before, now, shards), flush=True)
                before = now
        finally:
            cluster.wipe()
    return 0


def _replicas(cassandra: CassandraSettings, nodes: int, keys: list[bytes]) -> dict[int, list[frozenset[str]]]:
    """Return who has each key, per replication factor up to the number of nodes, as the driver reads the ring."""
    first = cassandra.model_copy(update={"contact_points": "127.0.0.1", "request_timeout_seconds": 60.0})
    with connected(first, "write") as session:
        while len(session.cluster.metadata.all_hosts()) < nodes:
            time.sleep(0.2)
            session.cluster.refresh_nodes()
        for rf in FACTORS:
            session.execute(
                f"CREATE KEYSPACE IF NOT EXISTS ring_{rf} WITH replication = "
                f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {rf}}}"
            )
        ring = session.cluster.metadata
        session.cluster.refresh_nodes(force_token_rebuild=True)
        return {
            rf: [frozenset(h.address for h in ring.get_replicas(f"ring_{rf}", key)) for key in keys]
            for rf in FACTORS
            if rf <= nodes
        }


def _line(
    n: int, before: dict[int, list[frozenset[str]]], now: dict[int, list[frozenset[str]]], shards: list[int]
) -> str:
    owned: dict[str, int] = {}
    for (owner,) in now[1]:
        owned[owner] = owned.get(owner, 0) + 1
    shares = f"{min(owned.values()) / len(shards):.1%} to {max(owned.values()) / len(shards):.1%}"
    moved = [
        f"{sum(len(b - a) for a, b in zip(before[rf], now[rf], strict=True)) / len(shards) / rf:.1%}"
        if rf in before
        else "–"
        for rf in FACTORS
    ]
    modulo = f"{sum(s % (n - 1) != s % n for s in shards) / len(shards):.1%}" if n > 1 else "–"
    return f"| {n} | {shares} | {' | '.join(moved)} | {1 / n:.1%} | {modulo} |"


if __name__ == "__main__":
    sys.exit(main())
