"""One Cassandra node of a local cluster."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fluvial.cluster.server import JVM_OPTIONS, Launch, NotReadyError, require_listening, write_files

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
# Where other nodes look for a node that has a proxy before it.
PROXY_HOSTS = ("127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4")

# Cassandra's own jvm17-server.options; it reaches into these packages.
_EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "java.base/java.lang.ref",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/jdk.internal.util",
    "jdk.unsupported/sun.misc",
    "jdk.attach/sun.tools.attach",
    "jdk.compiler/com.sun.tools.javac.file",
)
_OPENS = (
    "java.base/java.lang.module",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
    "java.base/sun.nio.ch",
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.util",
    "java.base/java.nio",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
)


@dataclass(frozen=True)
class CassandraNode:
    """Node ``number`` (from 1) of ``nodes``, at 127.0.0.<number>; the native and storage ports are every node's."""

    number: int
    nodes: int
    folder: Path
    port: int
    storage_port: int
    jmx_port: int
    java: Path
    jars: tuple[Path, ...]
    heap_mb: int
    ready_seconds: float = 180
    proxied: bool = False

    @property
    def name(self) -> str:
        """``cassandra-<number>``."""
        return f"cassandra-{self.number}"

    @property
    def host(self) -> str:
        """The address that the node listens on."""
        return HOSTS[self.number - 1]

    @property
    def has_joined_before(self) -> bool:
        """Whether the folder holds a node's data, so that the start is a restart and not a join."""
        return (self.folder / "data" / "data" / "system").exists()

    def prepare(self) -> None:
        """Write the configuration."""
        logback = files("fluvial.cluster").joinpath("cassandra-logback.xml").read_text()
        write_files(self.folder, {"cassandra.yaml": self.configuration(), "logback.xml": logback})

    def launch(self) -> Launch:
        """Return Cassandra's command line."""
        properties = {
            "java.security.manager": "allow",  # Cassandra installs one; Java 21 refuses by default
            "java.net.preferIPv4Stack": "true",
            "jdk.attach.allowAttachSelf": "true",
            "io.netty.tryReflectionSetAccessible": "true",
            "chronicle.announcer.disable": "true",
            "logback.configurationFile": self.folder / "logback.xml",
            "cassandra.config": (self.folder / "cassandra.yaml").as_uri(),
            "cassandra.storagedir": self.folder / "data",
            "cassandra.jmx.local.port": self.jmx_port,
            "cassandra.skip_wait_for_gossip_to_settle": 0,
            "cassandra.ring_delay_ms": 1000,
            "cassandra.shutdown_announce_in_ms": 100,
            "cassandra.consistent.rangemovement": "false",
            # `fluvial audit --replicas` asks each node for its own data alone.
            "cassandra.enable_nodelocal_queries": "true",
        }
        agent = next(j for j in self.jars if j.name.startswith("jamm-"))
        return Launch(
            (
                str(self.java),
                f"-Xms{self.heap_mb}m",
                f"-Xmx{self.heap_mb}m",
                "-Xss512k",
                "-XX:+UseParallelGC",
                "-XX:+PerfDisableSharedMem",
                *JVM_OPTIONS,
                f"-javaagent:{agent}",
                *(f"--add-exports={x}=ALL-UNNAMED" for x in _EXPORTS),
                *(f"--add-opens={x}=ALL-UNNAMED" for x in _OPENS),
                *(f"-D{key}={value}" for key, value in properties.items()),
                "-cp",
                ":".join(map(str, self.jars)),
                "org.apache.cassandra.service.CassandraDaemon",
            )
        )

    def check(self) -> None:
        """Run a query on this node."""
        require_listening(self.host, self.port)
        ask_cassandra(self.host, self.port)

    def configuration(self) -> str:
        """Render cassandra.yaml: JSON values are YAML."""
        data = self.folder / "data"
        # A node that is its own seed starts while others are away, but copies no data: a new one has only the first.
        known = PROXY_HOSTS if self.proxied else HOSTS
        seeds = known[: self.nodes] if self.has_joined_before else known[:1]
        megabytes = max(64, self.heap_mb // 4)
        settings: dict[str, object] = {
            "cluster_name": "fluvial",
            "num_tokens": 16,
            "allocate_tokens_for_local_replication_factor": min(self.nodes, 3),
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": ",".join(f"{host}:{self.storage_port}" for host in seeds)}],
                }
            ],
            "listen_address": self.host,
            "broadcast_address": known[self.number - 1],
            "rpc_address": self.host,
            "native_transport_port": self.port,
            "storage_port": self.storage_port,
            "data_file_directories": [str(data / "data")],
            "commitlog_directory": str(data / "commitlog"),
            "saved_caches_directory": str(data / "saved_caches"),
            "hints_directory": str(data / "hints"),
            "cdc_raw_directory": str(data / "cdc_raw"),
            # Periodic sync acknowledges what a SIGKILL within the next 100 ms would lose, and one node has no replica.
            "commitlog_sync": "group",
            "commitlog_sync_group_window": "5ms",
            "commitlog_total_space": "512MiB",
            "memtable_allocation_type": "offheap_objects",
            "memtable_heap_space": f"{megabytes}MiB",
            "memtable_offheap_space": f"{megabytes}MiB",
            "file_cache_size": "64MiB",
            "networking_cache_size": "32MiB",
            "key_cache_size": "16MiB",
            "counter_cache_size": "0MiB",
            "concurrent_compactors": 1,
            "read_request_timeout": "10s",
            "range_request_timeout": "10s",
            "write_request_timeout": "5s",
            "storage_compatibility_mode": "NONE",
            "auto_snapshot": False,
            "user_defined_functions_enabled": False,
        }
        return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())


def ask_cassandra(host: str, port: int, *, nodes: int = 1, timeout_seconds: float = 5) -> None:
    """Query one node, and check that it sees ``nodes`` nodes (itself included) with the schema agreed.

    Raises:
        NotReadyError: not yet.
    """
    from cassandra import DriverException
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
    from cassandra.policies import WhiteListRoundRobinPolicy

    profile = ExecutionProfile(WhiteListRoundRobinPolicy([host]), request_timeout=timeout_seconds)
    cluster = Cluster(
        [host],
        port,
        protocol_version=5,
        connect_timeout=timeout_seconds,
        control_connection_timeout=timeout_seconds,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        schema_metadata_enabled=False,
    )
    try:
        session = cluster.connect()
        mine = session.execute("SELECT bootstrapped, schema_version FROM system.local").one()
        peers = list(session.execute("SELECT schema_version FROM system.peers_v2"))
    except (NoHostAvailable, DriverException, OSError) as e:
        raise NotReadyError(f"Cassandra at {host}:{port}: {e}") from None
    finally:
        cluster.shutdown()
    if mine.bootstrapped != "COMPLETED":
        raise NotReadyError(f"Cassandra at {host} is still joining")
    if len(peers) < nodes - 1:
        raise NotReadyError(f"Cassandra at {host} sees {len(peers) + 1} of {nodes} nodes")
    if nodes > 1 and any(p.schema_version != mine.schema_version for p in peers):
        raise NotReadyError("the Cassandra nodes have not agreed on the schema")
