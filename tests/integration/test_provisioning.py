"""`fluvial init` on real servers: what is missing is made, what exists is compared and left alone."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.schema_registry import SchemaRegistryClient

from fluvial.cassandra import connected
from fluvial.errors import SchemaError
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import MINUTE_MS, Declaration, Pipeline, Table, Tumbling
from fluvial.schemas.findings import Finding, Report
from fluvial.schemas.provision import init
from fluvial.schemas.registry import Registry
from fluvial.schemas.sources import UnknownSchemaError
from fluvial.schemas.topics import HANDLED_TOPIC
from fluvial.settings import RegistrySettings, Settings
from fluvial.transport.connection import librdkafka_config

pytestmark = pytest.mark.integration

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "shop", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "total", "type": "double"},
    ],
}
TABLE = """
CREATE TABLE IF NOT EXISTS {name} (
    shop text, day date, window_start timestamp, window_end timestamp, count bigint, sum double, duplicates bigint,
    final boolean, generation int, source_partition int, source_offset bigint,
    PRIMARY KEY ((shop, day), window_start)
) WITH CLUSTERING ORDER BY (window_start DESC);
"""


@dataclass
class Place:
    """One deployment of its own on the shared servers: its names are nobody else's."""

    settings: Settings
    name: str
    directory: Path

    @property
    def topic(self) -> str:
        return f"{self.name}.orders"

    @property
    def table(self) -> str:
        return f"{self.name}_minute"

    def init(self, partitions: int = 2) -> Report:
        """Provision one pipeline."""
        pipeline = Pipeline(
            source=self.topic,
            event="shop.Order",
            key=("shop",),
            window=Tumbling(MINUTE_MS),
            aggregates=("count", "sum"),
            value="total",
            table=Table(self.table, ("shop",)),
        )
        kafka = self.settings.kafka.model_copy(update={"partitions": partitions})
        catalog = Catalog([Declaration((pipeline,), self.directory)])
        return init(kafka, self.settings.registry, self.settings.cassandra, self.name, catalog)

    def write(self, cql: str) -> None:
        (self.directory / "001_orders.cql").write_text(cql.format(name=self.table))


@pytest.fixture
def place(cluster_settings: Settings, tmp_path: Path) -> Iterator[Place]:
    name = f"p{uuid.uuid4().hex[:10]}"
    cassandra = cluster_settings.cassandra.model_copy(update={"keyspace": name})
    place = Place(cluster_settings.model_copy(update={"cassandra": cassandra}), name, tmp_path / name)
    place.directory.mkdir()
    (place.directory / "shop.Order.avsc").write_text(json.dumps(ORDER))
    place.write(TABLE)
    yield place
    admin = AdminClient(librdkafka_config(cluster_settings.kafka))
    topics = [t for t in admin.list_topics(timeout=10).topics if name in t]
    for future in admin.delete_topics(topics).values() if topics else ():
        future.result(timeout=30)
    with connected(cluster_settings.cassandra, "write") as session:
        session.execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=60)


def differing(report: Report) -> dict[str, Finding]:
    return {f.name: f for f in report.findings if f.state == "differs"}


def test_a_second_run_finds_everything_as_the_first_made_it(place: Place) -> None:
    first, second = place.init(), place.init()
    assert first.ok
    assert {f.kind for f in first.findings if f.state == "created"} == {"topic", "subject", "keyspace", "migration"}
    assert [(f.kind, f.name, f.state) for f in second.findings] == [
        (f.kind, f.name, "verified") for f in first.findings
    ]
    topics = {f.name for f in first.findings if f.kind == "topic"}
    result = f"fluvial.{place.table}"
    assert topics == {
        *(place.topic, f"{place.topic}.late", f"{place.topic}.dead-letter"),
        *(result, f"{result}.dead-letter", f"{place.name}.checkpoints", HANDLED_TOPIC),
    }


def test_other_settings_of_a_topic_are_reported_and_left_alone(place: Place) -> None:
    place.init()
    admin = AdminClient(librdkafka_config(place.settings.kafka))
    change = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, place.topic, incremental_configs=[change])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=30)
    for _ in range(2):
        found = differing(place.init(partitions=3))[place.topic].differences
        assert [(d.setting, d.found, d.declared) for d in found] == [
            ("partitions", "2", "3"),
            ("retention.ms", "1000", str(168 * 3_600_000)),
        ]
        assert all(d.hint for d in found)


def test_a_migration_that_changed_after_it_was_applied_is_refused(place: Place) -> None:
    place.init()
    place.write(TABLE + "ALTER TABLE {name} ADD discount double;")
    name = f"{place.name}/001_orders.cql"
    assert differing(place.init())[name].differences[0].setting == "checksum"
    place.write("-- only a remark\n" + TABLE)
    assert place.init().ok


def test_a_table_without_a_column_or_with_other_keys_is_reported(place: Place) -> None:
    place.write(TABLE.replace("sum double, ", "").replace("(shop, day)", "(shop)").replace("count bigint", "count int"))
    report = differing(place.init())[place.table].differences
    assert [(d.setting, d.found, d.declared) for d in report] == [
        ("column count", "int", "bigint"),
        ("column sum", "missing", "double"),
        ("partition key", "shop", "shop, day"),
    ]


def test_a_missing_table_says_how_to_make_it(place: Place) -> None:
    (place.directory / "001_orders.cql").unlink()
    difference = differing(place.init())[place.table].differences[0]
    assert difference.found == "missing"
    assert f"creates {place.table}" in difference.hint


def test_other_replication_of_the_keyspace_is_reported(place: Place) -> None:
    place.init()
    cassandra = place.settings.cassandra.model_copy(update={"replication_factor": 3})
    other = replace(place, settings=place.settings.model_copy(update={"cassandra": cassandra}))
    difference = differing(other.init())[place.name].differences[0]
    assert (difference.setting, difference.found, difference.declared) == (
        "replication",
        "datacenter1: 1",
        "datacenter1: 3",
    )


def test_a_laxer_compatibility_of_a_subject_is_reported(place: Place) -> None:
    place.init()
    subject = f"{place.topic}-value"
    with SchemaRegistryClient({"url": place.settings.registry.url}) as client:
        client.set_compatibility(subject, "NONE")
    assert differing(place.init())[subject].differences[0].found == "NONE"


def test_an_incompatible_schema_is_refused_by_its_subject(place: Place) -> None:
    place.init()
    fields = [*ORDER["fields"], {"name": "customer", "type": "string"}]  # type: ignore[misc]
    (place.directory / "shop.Order.avsc").write_text(json.dumps({**ORDER, "fields": fields}))
    # The file is read once per process and directory: another directory with the same files is another declaration.
    moved = place.directory.rename(place.directory.with_name(f"{place.name}b"))
    with pytest.raises(SchemaError, match=f"subject {place.topic}-value: the schema is incompatible"):
        replace(place, directory=moved).init()


def test_the_registry_knows_what_it_was_given_and_says_so_of_all_else(registry: RegistrySettings) -> None:
    subject = f"t{uuid.uuid4().hex}-value"
    with Registry(registry) as client:
        schema_id = client.register(subject, ORDER)
        assert client.register(subject, ORDER) == client.schema_id(subject, ORDER) == schema_id
        assert client.compatibility(subject) == "BACKWARD_TRANSITIVE"
        assert client.by_id(schema_id) == ORDER
        with pytest.raises(UnknownSchemaError):
            client.by_id(2_000_000_000)
        with pytest.raises(SchemaError, match="fluvial init"):
            client.schema_id(subject, {**ORDER, "fields": ORDER["fields"][:2]})
