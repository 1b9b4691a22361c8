"""Real Kafka, Cassandra and a schema registry on this machine, without a container engine."""

from fluvial.cluster.local import LocalCluster, ServerStatus
from fluvial.cluster.progress import Report, Step
from fluvial.cluster.spec import ClusterSpec

__all__ = ["ClusterSpec", "LocalCluster", "Report", "ServerStatus", "Step"]
