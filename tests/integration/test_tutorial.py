"""The tutorial of the shop's orders does what it says: its files, its commands and their output, on real servers."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from fluvial.cassandra import connected
from fluvial.settings import Settings
from fluvial.transport.connection import librdkafka_config
from support.markdown import File, steps
from support.servers import unique_keyspace

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "your-own-events.md"
TOPICS = ("shop.orders", "fluvial.store_hour")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def environment(cluster_settings: Settings) -> Iterator[dict[str, str]]:
    """Variables that lead a command to the test's servers, a keyspace and groups of its own, and no old orders."""
    s, name = cluster_settings, unique_keyspace("tutorial")
    _delete_topics(s)
    yield {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLUVIAL_KAFKA__BROKERS": s.kafka.brokers,
        "FLUVIAL_REGISTRY__URL": s.registry.url,
        "FLUVIAL_CASSANDRA__CONTACT_POINTS": s.cassandra.contact_points,
        "FLUVIAL_CASSANDRA__PORT": str(s.cassandra.port),
        "FLUVIAL_CASSANDRA__LOCAL_DATACENTER": s.cassandra.local_datacenter,
        "FLUVIAL_CASSANDRA__KEYSPACE": name,
        "FLUVIAL_WORKER__GROUP": f"{name}-worker",
        "FLUVIAL_SINK__GROUP": f"{name}-sink",
        "FLUVIAL_LOG_FORMAT": "text",
    }
    _delete_topics(s, f"{name}-worker.checkpoints")
    with connected(s.cassandra, "write") as session:
        session.execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=60)


def test_the_tutorial_does_what_it_says(environment: dict[str, str], tmp_path: Path) -> None:
    asked = []
    for step in steps(PAGE):
        if isinstance(step, File):
            step.write(tmp_path)
        else:
            step.run(tmp_path, environment)
            asked.append(step)
    assert asked[-1].line.startswith("fluvial query store_hour")


def _delete_topics(settings: Settings, *more: str) -> None:
    admin = AdminClient(librdkafka_config(settings.kafka))
    known = admin.list_topics(timeout=30).topics
    ours = [t for t in known if t in more or any(t == o or t.startswith(f"{o}.") for o in TOPICS)]
    if ours:
        for future in admin.delete_topics(ours, operation_timeout=30).values():
            future.result()
