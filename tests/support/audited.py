"""A small deployment with everything in it that an audit looks at: rows of every kind, late events, repeats, bad records."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from fluvial.cassandra import connected
from fluvial.schemas.avro import SCHEMA_DIR, DatumWriter, load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Declaration, Pipeline, Session, Table
from fluvial.schemas.migrations import migrations_in, statements
from fluvial.schemas.registry import Registry
from fluvial.schemas.tables import table_spec
from fluvial.schemas.topics import ensure_topics, topic_specs
from fluvial.services.replay import ReplayRun
from fluvial.services.replay_plan import ReplayRequest
from fluvial.services.together import run_until_caught_up
from fluvial.settings import Settings
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import OutRecord, Publisher
from support.fake_registry import fake_registry
from support.servers import unique_keyspace

MINUTE = 60_000
BASE = 1_700_000_000_000 // MINUTE * MINUTE
READING = load_schema("fluvial.iot.SensorReading")


@dataclass(frozen=True)
class Deployment:
    """Two pipelines of one topic with two partitions, in a keyspace of their own; ``environment`` for the command line."""

    settings: Settings
    catalog: Catalog
    minute: Pipeline
    sessions: Pipeline
    environment: dict[str, str]

    def publish(self, topic: str, records: Sequence[OutRecord]) -> None:
        """Publish records and wait until Kafka has them."""

        async def publish() -> None:
            async with Publisher(self.settings.kafka) as publisher:
                await (await publisher.publish_records(topic, records))

        asyncio.run(publish())

    def run(self) -> None:
        """Run worker and sink until everything is in Cassandra."""
        asyncio.run(run_until_caught_up(self.settings, self.catalog))

    def replay(self, begin: int, end: int) -> None:
        """Replay the minutes of a range, late events included; a sink has yet to write the rows."""
        request = ReplayRequest(self.minute.name, begin, end)
        asyncio.run(ReplayRun(self.settings, self.catalog, request).run())

    def execute(self, *statements: str) -> None:
        """Run CQL in the keyspace."""
        with connected(self.settings.cassandra, "write", keyspace=self.settings.cassandra.keyspace) as session:
            for statement in statements:
                session.execute(statement)

    def value(self, topic: str, fields: dict[str, Any]) -> bytes:
        """Return a record's value in Avro, as the topic's subject has it."""
        schema = next(t.schema for t in self.catalog.topics if t.name == topic)
        with Registry(self.settings.registry) as registry:
            return DatumWriter(dict(schema), registry.schema_id(f"{topic}-value", dict(schema))).write(fields)


@contextmanager
def deployment(cluster: Settings, folder: Path, replicas: int = 1) -> Iterator[Deployment]:
    """Provide topics, tables and schemas of its own, and drop them afterwards."""
    name = unique_keyspace("audit")
    topic = f"{name}.readings"
    minute = replace(SENSOR_MINUTE, source=topic, table=replace(SENSOR_MINUTE.table, name=f"{name}_minute"))
    sessions = replace(
        minute, key=("sensor_id",), window=Session(MINUTE), time="partition", aggregates=("count",), value=None,
        identity=("sequence",), early_ms=0, table=Table(f"{name}_sessions", ("sensor_id",), bucket="month"),
    )  # fmt: skip
    declaration = folder / f"{name}.py"
    declaration.write_text(
        "from pathlib import Path\nfrom fluvial.schemas.declarations import *\n"
        f"DECLARATION = Declaration(({minute!r}, {sessions!r}), schema_dir=Path({str(folder)!r}))\n"
    )
    catalog = Catalog([Declaration((minute, sessions), schema_dir=folder)])
    with fake_registry() as registry:
        changed = {
            "kafka": cluster.kafka.model_copy(update={"partitions": 2}),
            "registry": cluster.registry.model_copy(update={"url": registry.url}),
            "cassandra": cluster.cassandra.model_copy(update={"keyspace": name}),
            "worker": cluster.worker.model_copy(update={"group": f"{name}-worker"}),
            "sink": cluster.sink.model_copy(update={"group": f"{name}-sink"}),
        }
        settings = cluster.model_copy(update=changed)
        environment = {
            "FLUVIAL_KAFKA__BROKERS": settings.kafka.brokers,
            "FLUVIAL_REGISTRY__URL": registry.url,
            "FLUVIAL_CASSANDRA__CONTACT_POINTS": settings.cassandra.contact_points,
            "FLUVIAL_CASSANDRA__PORT": str(settings.cassandra.port),
            "FLUVIAL_CASSANDRA__KEYSPACE": name,
            "FLUVIAL_WORKER__GROUP": settings.worker.group,
            "FLUVIAL_WORKER__PIPELINES": f"{minute.name},{sessions.name}",
            "FLUVIAL_WORKER__DECLARATIONS": str(declaration),
            "FLUVIAL_SINK__GROUP": settings.sink.group,
        }
        admin = AdminClient(librdkafka_config(settings.kafka))
        specs = topic_specs(catalog, settings.kafka, settings.worker.group)
        ensure_topics(admin, specs)
        with Registry(settings.registry) as client:
            for t in catalog.topics:
                client.register(t.subject, t.schema)
        with _keyspace(settings, catalog, replicas):
            yield Deployment(settings, catalog, minute, sessions, environment)
    for future in admin.delete_topics([s.name for s in specs if s.name.startswith((name, f"fluvial.{name}"))]).values():
        future.result(30)


@contextmanager
def _keyspace(settings: Settings, catalog: Catalog, replicas: int) -> Iterator[None]:
    keyspace = settings.cassandra.keyspace
    with connected(settings.cassandra, "write") as session:
        session.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}",
            timeout=60,
        )
        try:
            for p in catalog.pipelines:
                spec = table_spec(p, catalog.schema_of(p.result_topic))
                columns = ", ".join(f"{column} {kind}" for column, kind in spec.columns.items())
                order = ", ".join(f"{column} {way}" for column, way in spec.clustering)
                clustering = ", ".join(column for column, _ in spec.clustering)
                session.execute(
                    f"CREATE TABLE {keyspace}.{spec.name} ({columns}, PRIMARY KEY (({', '.join(spec.partition_key)}), "
                    f"{clustering})) WITH CLUSTERING ORDER BY ({order})",
                    timeout=60,
                )
            session.set_keyspace(keyspace)
            for migration in migrations_in(SCHEMA_DIR, "tests"):
                if "replays" in migration.name:
                    for statement in statements(migration.text):
                        session.execute(statement, timeout=60)
            yield
        finally:
            session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


def reading(sensor: str, time_ms: int, value: float, sequence: int, partition: int) -> OutRecord:
    """Return a reading; its schema is the first that was registered."""
    event = {"sensor_id": sensor, "metric": "m", "site": "", "event_time": time_ms, "value": value, "unit": None}
    encoded = DatumWriter(READING, 1).write(event | {"sequence": sequence})
    return OutRecord(sensor.encode(), encoded, partition=partition)


def story() -> list[OutRecord]:
    """Return records of every fate: 4 sensors over 4 minutes, 2 repeats, 2 late, 3 bad, a tick of either kind."""
    records = []
    for i in range(96):
        sensor = f"s{i % 4}"
        records.append(reading(sensor, BASE + i * 2_500, 0.1 * i, i, i % 2))
    records += [reading("s0", BASE + 92 * 2_500, 9.2, 92, 0), reading("s1", BASE + 93 * 2_500, 9.3, 93, 1)]
    records += [reading("s0", BASE + 5, 1.0, 1_000, 0), reading("s3", BASE + 6, 1.0, 1_001, 1)]
    records += [OutRecord(b"s0", b"garbage", partition=0), OutRecord(None, None, partition=0)]
    records.append(reading("s1", 4_000_000_000_000, 1.0, 1_002, 1))
    tick = ("fluvial-tick", str(BASE + 3 * MINUTE).encode())
    records += [OutRecord(None, None, (tick,), 0), OutRecord(b"s2", None, (tick,), 0)]
    return records
