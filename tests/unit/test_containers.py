"""docker/ and the containers of the tests say what the local cluster says."""

import re
from pathlib import Path

import pytest

from fluvial.cluster.locking import REGISTRY, ROOTS
from fluvial.settings import load_settings
from support import containers

DOCKER = Path(__file__).parents[2] / "docker"


def _compose() -> str:
    return (DOCKER / "compose.yaml").read_text()


def _three() -> dict[str, str]:
    lines = (DOCKER / "three.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _substituted(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: variables.get(m[1], m[2]), text)


def _version(coordinate: str) -> str:
    return coordinate.rpartition(":")[2]


@pytest.mark.parametrize(
    ("image", "version"),
    [
        (containers.KAFKA_IMAGE, _version(ROOTS["kafka"][0])),
        (containers.CASSANDRA_IMAGE, _version(ROOTS["cassandra"][0])),
        (containers.REGISTRY_IMAGE, REGISTRY[-1]),
    ],
)
def test_containers_and_local_servers_are_of_one_version(image: str, version: str) -> None:
    assert image.endswith(f":{version}")
    assert f"image: {image}\n" in _compose()


@pytest.mark.parametrize("variables", [{}, _three()])
def test_what_the_services_are_told_are_settings(variables: dict[str, str]) -> None:
    told = dict(re.findall(r"^ +(FLUVIAL_\w+): (\S+)$", _substituted(_compose(), variables), re.MULTILINE))
    settings = load_settings(environ=told, config_file=Path("none.toml"), cluster_file=Path("none.json"))
    replicas = 3 if variables else 1
    assert len(settings.kafka.brokers.split(",")) == settings.kafka.replication_factor == replicas
    assert len(settings.cassandra.contact_points.split(",")) == settings.cassandra.replication_factor == replicas
    assert settings.kafka.min_insync_replicas == (2 if variables else 1)


def test_the_file_for_three_sets_only_what_compose_reads() -> None:
    read = set(re.findall(r"\$\{(\w+):-", _compose()))
    assert set(_three()) - {"COMPOSE_PROFILES"} == read


def test_every_server_and_service_has_a_health_check_or_waits_for_one() -> None:
    services = _compose().partition("\nservices:\n")[2].partition("\nvolumes:")[0]
    blocks = dict(re.findall(r"^  ([\w-]+):\n((?:    .*\n|\n)+)", services, re.MULTILINE))
    assert {"kafka-1", "kafka-3", "registry", "cassandra-1", "cassandra-3", "init", "worker", "sink"} <= set(blocks)
    for name, block in blocks.items():
        guarded = any(x in block for x in ("healthcheck:", "*kafka\n", "*cassandra\n", "depends_on"))
        assert guarded, name


def test_the_image_does_not_run_as_root() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert [x for x in lines if x.startswith("USER")] == ["USER fluvial"]
    assert lines.index("USER fluvial") < next(i for i, x in enumerate(lines) if x.startswith("ENTRYPOINT"))
