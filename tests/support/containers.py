"""The same servers from a container engine, for those who have one: FLUVIAL_TEST_SERVERS=containers."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from fluvial.cluster.cassandra import ask_cassandra
from fluvial.cluster.kafka import ask_kafka
from fluvial.cluster.ports import PortPicker
from fluvial.cluster.registry import API_PATH, ask_registry
from fluvial.cluster.server import NotReadyError, require_listening
from fluvial.settings import CassandraSettings, KafkaSettings, RegistrySettings

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

# docker/compose.yaml has the same.
KAFKA_IMAGE = "apache/kafka:4.3.1"
CASSANDRA_IMAGE = "cassandra:5.0.9"
REGISTRY_IMAGE = "apicurio/apicurio-registry:3.3.3"
READY_SECONDS = 180


class ContainerServers:
    """One container each of Kafka, the registry and Cassandra, started when first asked for."""

    def __init__(self) -> None:
        self._started: list[DockerContainer] = []

    def kafka(self) -> KafkaSettings:
        return self._kafka

    def registry(self) -> RegistrySettings:
        return self._registry

    def cassandra(self) -> CassandraSettings:
        return self._cassandra

    def close(self) -> None:
        for container in reversed(self._started):
            container.stop()

    @cached_property
    def _kafka(self) -> KafkaSettings:
        # A broker tells its clients its own address, so the port outside must be known before it starts.
        port = PortPicker().pick()
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        }
        self._start(_container(KAFKA_IMAGE, settings).with_bind_ports(port, port))
        bootstrap = f"localhost:{port}"
        _wait(lambda: ask_kafka(bootstrap, brokers=1))
        return KafkaSettings(brokers=bootstrap)

    @cached_property
    def _registry(self) -> RegistrySettings:
        container = self._start(_container(REGISTRY_IMAGE, {}).with_exposed_ports(8080, 9000))
        host = container.get_container_host_ip()
        port, management = container.get_exposed_port(8080), container.get_exposed_port(9000)
        _wait(lambda: ask_registry(host, port, management))
        return RegistrySettings(url=f"http://{host}:{port}{API_PATH}")

    @cached_property
    def _cassandra(self) -> CassandraSettings:
        settings = {"MAX_HEAP_SIZE": "1G", "HEAP_NEWSIZE": "256M"}
        container = self._start(_container(CASSANDRA_IMAGE, settings).with_exposed_ports(9042))
        host, port = container.get_container_host_ip(), container.get_exposed_port(9042)
        _wait(lambda: (require_listening(host, port), ask_cassandra(host, port)))
        return CassandraSettings(contact_points=host, port=port)

    def _start(self, container: "DockerContainer") -> "DockerContainer":
        container.start()
        self._started.append(container)
        return container


def _container(image: str, env: dict[str, str]) -> "DockerContainer":
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image)
    for name, value in env.items():
        container.with_env(name, value)
    return container


def _wait(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            check()
        except NotReadyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
