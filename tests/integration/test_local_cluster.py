"""Local clusters of their own, each with as few servers as its claim needs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.cassandra import connected
from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.schemas.registry import Registry
from fluvial.services.status import Away, KafkaStatus, ask, kafka_status
from fluvial.settings import CassandraSettings, KafkaSettings, RegistrySettings, Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.environ.get("FLUVIAL_TEST_SERVERS", "local") != "local", reason="is about local servers"),
]

Clusters = Callable[[ClusterSpec], LocalCluster]


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    """Makes clusters, not yet started, that are gone after the test."""
    made: list[LocalCluster] = []

    def make(spec: ClusterSpec) -> LocalCluster:
        made.append(LocalCluster(tmp_path / f"cluster-{len(made)}", spec))
        return made[-1]

    yield make
    for cluster in made:
        cluster.wipe()


def test_what_servers_keep_survives_kills_and_restarts(clusters: Clusters) -> None:
    cluster = clusters(ClusterSpec(ports="any", node_heap_mb=768))
    cluster.start()
    settings, ports = cluster.settings, {s.name: s.ports for s in cluster.status()}
    _create(settings.kafka, "t", partitions=2)
    _produce(settings.kafka, "t", 100)
    schema = {"type": "record", "name": "T", "fields": []}
    with Registry(settings.registry) as registry:
        schema_id = registry.register("t-value", schema)
    _insert(settings.cassandra, 7)

    for name in cluster.spec.names:
        cluster.kill(name)
    cluster.start()
    assert {s.name: s.ports for s in cluster.status()} == ports
    assert cluster.settings == settings
    assert _records(settings.kafka, "t") == 100
    with Registry(settings.registry) as registry:
        assert registry.by_id(schema_id) == schema
    assert _selected(settings.cassandra) == [7]

    found = ask(settings)
    assert found.ok
    assert isinstance(found.kafka, KafkaStatus)
    assert [(t.name, t.partitions, t.records) for t in found.kafka.topics] == [("t", 2, 100)]

    assert cluster.stop() == list(cluster.spec.names)
    assert isinstance(ask(settings).registry, Away)


def test_one_of_three_brokers_may_die_and_come_back(clusters: Clusters) -> None:
    cluster = clusters(ClusterSpec(ports="any", brokers=3, nodes=0, registry=False, broker_heap_mb=384))
    cluster.start()
    kafka = cluster.settings.kafka
    assert kafka.replication_factor == 3
    _create(kafka, "t", partitions=3)
    _produce(kafka, "t", 30)

    cluster.kill("kafka-2")
    _produce(kafka, "t", 30)
    cluster.restart("kafka-2")
    cluster.pause("kafka-3")
    cluster.resume("kafka-3")
    _produce(kafka, "t", 30)

    (topic,) = [t for t in kafka_status(kafka).topics if t.name == "t"]
    assert (topic.replicas, topic.records) == (3, 90)


def test_a_taken_port_moves_the_server_and_the_settings(clusters: Clusters) -> None:
    cluster = clusters(ClusterSpec(ports="any", brokers=1, nodes=0, registry=False, broker_heap_mb=384))
    cluster.start()
    _create(cluster.settings.kafka, "t", partitions=1)
    old = cluster.settings.kafka.brokers
    cluster.stop()
    with socket.create_server(("127.0.0.1", int(old.rpartition(":")[2]))):
        cluster.start()
        assert cluster.settings.kafka.brokers != old
        assert _records(cluster.settings.kafka, "t") == 0


def test_up_status_and_down_from_the_command_line(tmp_path: Path) -> None:
    environ = {**os.environ, "FLUVIAL_CLUSTER_DIR": str(tmp_path / "c")}

    def fluvial(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from fluvial.cli import main; main()", *arguments]
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)

    try:
        up = fluvial("up", "--nodes", "0", "--no-registry")
        assert up.returncode == 0, up.stderr
        assert "kafka-1: ready after" in up.stderr
        brokers = json.loads((tmp_path / "c" / "cluster.json").read_text())["settings"]["kafka"]["brokers"]
        assert f"Kafka      {brokers}" in up.stdout

        status = json.loads(fluvial("status", "--format", "json").stdout)
        assert [(s["name"], s["running"]) for s in status["servers"]] == [("kafka-1", True)]
        assert status["kafka"]["brokers"] == [brokers]

        again = fluvial("up")
        assert again.returncode == 0
        assert "starting" not in again.stderr
    finally:
        down = fluvial("down", "--delete")
    assert down.stdout == "Stopped kafka-1.\n"
    assert fluvial("down").stdout.startswith("Nothing runs in ")


def test_status_says_what_does_not_answer() -> None:
    nobody = Settings(
        kafka=KafkaSettings(brokers="127.0.0.1:1"),
        registry=RegistrySettings(url="http://127.0.0.1:1"),
        cassandra=CassandraSettings(port=1),
    )
    found = ask(nobody)
    assert not found.ok
    for answer in (found.kafka, found.registry, found.cassandra):
        assert isinstance(answer, Away)
        assert "127.0.0.1" in answer.reason


def test_foreground_up_stops_everything_on_ctrl_c(tmp_path: Path) -> None:
    import signal

    environ = {**os.environ, "FLUVIAL_CLUSTER_DIR": str(tmp_path / "c")}
    code = "from fluvial.cli import main; main(['up', '--foreground', '--nodes', '0', '--brokers', '0'])"
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("Ctrl-C stops everything." in line for line in process.stdout)
        cluster = LocalCluster(tmp_path / "c")
        assert [s.name for s in cluster.status() if s.running] == ["registry"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not any(s.running for s in cluster.status())
    finally:
        process.kill()
        process.communicate()
        LocalCluster(tmp_path / "c").stop()


@pytest.mark.faults
def test_one_of_three_nodes_may_die_and_all_may_restart(clusters: Clusters) -> None:
    cluster = clusters(ClusterSpec(ports="any", brokers=0, nodes=3, registry=False, node_heap_mb=768))
    cluster.start()
    settings = cluster.settings.cassandra
    assert settings.replication_factor == 3
    _insert(settings, 1)
    cluster.kill("cassandra-1")
    _insert(settings, 2)
    cluster.start_server("cassandra-1")
    _insert(settings, 3)
    cluster.stop()
    cluster.start()
    assert _selected(settings) == [1, 2, 3]


def _create(kafka: KafkaSettings, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    for future in admin.create_topics([NewTopic(topic, partitions, kafka.replication_factor)]).values():
        future.result(30)


def _produce(kafka: KafkaSettings, topic: str, records: int) -> None:
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": kafka.brokers, "acks": "all", "enable.idempotence": True, "log_level": 0})
    for i in range(records):
        producer.produce(topic, str(i).encode(), on_delivery=lambda e, _: failed.append(e) if e else None)
    assert producer.flush(60) == 0
    assert failed == []


def _records(kafka: KafkaSettings, topic: str) -> int:
    (found,) = [t for t in kafka_status(kafka).topics if t.name == topic]
    return found.records


def _insert(settings: CassandraSettings, value: int) -> None:
    with connected(settings, "write") as session:
        replication = f"{{'class': 'SimpleStrategy', 'replication_factor': {settings.replication_factor}}}"
        session.execute(f"CREATE KEYSPACE IF NOT EXISTS ks WITH replication = {replication}")
        session.execute("CREATE TABLE IF NOT EXISTS ks.t (k int PRIMARY KEY)")
        session.execute("INSERT INTO ks.t (k) VALUES (%s)", [value])


def _selected(settings: CassandraSettings) -> list[int]:
    with connected(settings, "read") as session:
        return sorted(row.k for row in session.execute("SELECT k FROM ks.t"))
