"""Fixtures of real servers, each started on first use and stopped at the end of the session.

FLUVIAL_TEST_SERVERS=containers takes containers (a container engine is needed) instead of local processes.
FLUVIAL_TEST_CLUSTER_DIR names a running cluster (`fluvial up`) to use instead; it is left running.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.settings import CassandraSettings, KafkaSettings, RegistrySettings, Settings

LOCAL, CONTAINERS = "local", "containers"


class Servers(Protocol):
    """What the fixtures need: each call returns once the server serves, and starts it when needed."""

    def kafka(self) -> KafkaSettings: ...
    def registry(self) -> RegistrySettings: ...
    def cassandra(self) -> CassandraSettings: ...
    def close(self) -> None: ...


class LocalServers:
    """A local cluster of this test session."""

    def __init__(self, directory: Path) -> None:
        self._cluster = LocalCluster(directory, ClusterSpec(ports="any"))

    def kafka(self) -> KafkaSettings:
        return self._with("kafka-1").kafka

    def registry(self) -> RegistrySettings:
        return self._with("registry").registry

    def cassandra(self) -> CassandraSettings:
        return self._with("cassandra-1").cassandra

    def close(self) -> None:
        self._cluster.wipe()

    def _with(self, name: str) -> Settings:
        self._cluster.start_server(name)
        return self._cluster.settings


class RunningServers:
    """Somebody else's cluster: used, never stopped."""

    def __init__(self, directory: Path) -> None:
        self._settings = LocalCluster(directory).settings

    def kafka(self) -> KafkaSettings:
        return self._settings.kafka

    def registry(self) -> RegistrySettings:
        return self._settings.registry

    def cassandra(self) -> CassandraSettings:
        return self._settings.cassandra

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of this session, none of them started yet."""
    running: Servers
    if named := os.environ.get("FLUVIAL_TEST_CLUSTER_DIR"):
        running = RunningServers(Path(named))
    elif (kind := os.environ.get("FLUVIAL_TEST_SERVERS", LOCAL)) == CONTAINERS:
        from support.containers import ContainerServers

        running = ContainerServers()
    elif kind == LOCAL:
        running = LocalServers(tmp_path_factory.mktemp("cluster"))
    else:
        pytest.fail(f"FLUVIAL_TEST_SERVERS={kind}: {LOCAL} or {CONTAINERS}")
    # A runner's time-out sends SIGTERM, which by itself would end the session and leave its servers running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield running
    signal.signal(signal.SIGTERM, before)
    running.close()


@pytest.fixture(scope="session")
def kafka(servers: Servers) -> KafkaSettings:
    """One real broker."""
    return servers.kafka()


@pytest.fixture(scope="session")
def registry(servers: Servers) -> RegistrySettings:
    """A real schema registry."""
    return servers.registry()


@pytest.fixture(scope="session")
def cassandra(servers: Servers) -> CassandraSettings:
    """One real Cassandra node."""
    return servers.cassandra()


@pytest.fixture(scope="session")
def cluster_settings(kafka: KafkaSettings, registry: RegistrySettings, cassandra: CassandraSettings) -> Settings:
    """Settings that lead to all three."""
    return Settings(kafka=kafka, registry=registry, cassandra=cassandra)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test uses; the topic is not created."""
    return unique_topic(request.node.name)


def unique_topic(prefix: str = "topic") -> str:
    """Return a topic name that nothing else uses, from a prefix of any characters."""
    return f"{''.join(c if c.isalnum() else '-' for c in prefix)[:80]}-{uuid.uuid4().hex[:8]}"


def unique_keyspace(prefix: str = "test") -> str:
    """Return a keyspace name that nothing else uses."""
    return f"{''.join(c if c.isalnum() else '_' for c in prefix.lower())[:32]}_{uuid.uuid4().hex[:8]}"
