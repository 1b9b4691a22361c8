"""One Kafka broker of a local cluster, broker and KRaft controller in one process."""

import logging
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fluvial.cluster.logs import relevant_lines
from fluvial.cluster.server import JVM_OPTIONS, Launch, NotReadyError, require_listening, write_files
from fluvial.errors import ClusterError

HOST = "127.0.0.1"
FORMAT_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class KafkaBroker:
    """Broker ``node_id`` (from 1); ``controllers`` are all brokers' controller ports in the order of their ids."""

    node_id: int
    folder: Path
    port: int
    controllers: tuple[int, ...]
    cluster_id: str
    java: Path
    jars: tuple[Path, ...]
    heap_mb: int
    ready_seconds: float = 90
    # A second listener's port, and the one that its clients, other brokers among them, are told.
    proxied: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """``kafka-<node id>``."""
        return f"kafka-{self.node_id}"

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        """Write the properties; format the log directory when it is new.

        Raises:
            ClusterError: Kafka's storage tool failed.
        """
        write_files(self.folder, {"server.properties": self.properties(), "logback.xml": _logback()})
        if (self.folder / "data" / "meta.properties").exists():
            return
        options = ("-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        arguments = ("format", "-t", self.cluster_id, "-c", str(self.folder / "server.properties"))
        argv = [*self._java(*options), "kafka.tools.StorageTool", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=FORMAT_TIMEOUT_SECONDS)  # noqa: S603
        if done.returncode:
            why = "; ".join(relevant_lines(done.stdout + done.stderr, 3))
            raise ClusterError(
                f"cannot format {self.folder / 'data'}: {why}", hint="begin anew with `fluvial up --fresh`"
            )

    def launch(self) -> Launch:
        """Return Kafka's command line."""
        heap = (
            f"-Xms{min(256, self.heap_mb)}m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=50",
            *JVM_OPTIONS,
        )
        return Launch((*self._java(*heap), "kafka.Kafka", str(self.folder / "server.properties")))

    def check(self) -> None:
        """Ask for the metadata, and whether a topic could be created, even while other brokers are away."""
        require_listening(HOST, self.port)
        ask_kafka(self.bootstrap, brokers=1)

    def properties(self) -> str:
        """Render server.properties."""
        n = len(self.controllers)
        voters = ",".join(f"{i}@{HOST}:{port}" for i, port in enumerate(self.controllers, 1))
        listeners = f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controllers[self.node_id - 1]}"
        advertised = f"PLAINTEXT://{HOST}:{self.port}"
        if self.proxied is not None:
            listeners += f",PROXIED://{HOST}:{self.proxied[0]}"
            advertised += f",PROXIED://{HOST}:{self.proxied[1]}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.node_id,
            "controller.quorum.voters": voters,
            "listeners": listeners,
            "advertised.listeners": advertised,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PROXIED" if self.proxied is not None and n > 1 else "PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "num.partitions": 4,
            "default.replication.factor": n,
            "min.insync.replicas": max(1, n - 1),
            "offsets.topic.replication.factor": n,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": n,
            "transaction.state.log.min.isr": max(1, n - 1),
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": n,
            "share.coordinator.state.topic.min.isr": max(1, n - 1),
            "share.coordinator.state.topic.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.segment.bytes": 256 * 2**20,
            "log.cleaner.dedupe.buffer.size": 32 * 2**20,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def _java(self, *options: str) -> tuple[str, ...]:
        classpath = ":".join(map(str, self.jars))
        logging_file = f"-Dlogback.configurationFile={self.folder / 'logback.xml'}"
        return (str(self.java), *options, logging_file, "-cp", classpath)


def ask_kafka(bootstrap: str, *, brokers: int, timeout_seconds: float = 5) -> None:
    """Check that ``brokers`` brokers are members and that a topic on all of them could be created.

    Raises:
        NotReadyError: not yet.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    quiet = logging.getLogger("fluvial.cluster.librdkafka")
    quiet.disabled = True
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}, logger=quiet)
    probe = NewTopic("fluvial.readiness-probe", num_partitions=1, replication_factor=brokers)
    try:
        found = len(admin.list_topics(timeout=timeout_seconds).brokers)
        if found < brokers:
            raise NotReadyError(f"{found} of {brokers} brokers have joined")
        for future in admin.create_topics([probe], validate_only=True, request_timeout=timeout_seconds).values():
            future.result(timeout_seconds)
    except (KafkaException, TimeoutError) as e:
        raise NotReadyError(f"Kafka at {bootstrap}: {e}") from None


def _logback() -> str:
    return files("fluvial.cluster").joinpath("kafka-logback.xml").read_text()
