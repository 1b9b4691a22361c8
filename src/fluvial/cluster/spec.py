"""What a local cluster consists of."""

from dataclasses import dataclass
from typing import Literal

from fluvial.errors import ClusterError

SIZES = {"brokers": (0, 1, 3), "nodes": (0, 1, 3, 4)}


@dataclass(frozen=True)
class ClusterSpec:
    """How many servers of each kind, and the heap (MiB) of each.

    ``brokers`` and ``nodes`` are 1 or 3, or 0 to leave Kafka or Cassandra out; 4 nodes are there to see a ring grow.
    ``ports`` "usual" prefers 9092, 8081, 9042 …; "any" takes random ones from the start, so that clusters that start at
    once do not want the same. ``proxied`` gives each broker a second listener, port ``proxied``, whose clients and
    fellow brokers are told to connect to port ``proxy``, and lets the nodes look for node n at 127.0.1.n: where proxies of
    the tests stand between.
    """

    brokers: int = 1
    nodes: int = 1
    registry: bool = True
    broker_heap_mb: int = 768
    node_heap_mb: int = 1024
    registry_heap_mb: int = 320
    ports: Literal["usual", "any"] = "usual"
    proxied: bool = False

    def __post_init__(self) -> None:
        for what, n in (("brokers", self.brokers), ("nodes", self.nodes)):
            if n not in SIZES[what]:
                raise ClusterError(f"{n} {what}: a local cluster has 1 or 3", hint=f"choose --{what} 1 or 3")

    @property
    def names(self) -> tuple[str, ...]:
        """The servers, in the order in which they depend on one another."""
        return (
            *(f"kafka-{i}" for i in range(1, self.brokers + 1)),
            *(f"cassandra-{i}" for i in range(1, self.nodes + 1)),
            *(("registry",) if self.registry else ()),
        )

    @property
    def kafka_replication(self) -> int:
        """Replicas of a topic: one on every broker."""
        return max(1, self.brokers)

    @property
    def kafka_min_insync(self) -> int:
        """Replicas that must acknowledge: one broker of three may be away."""
        return max(1, self.brokers - 1)
