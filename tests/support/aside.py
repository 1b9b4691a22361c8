"""A pipeline with topics of its own and a registry in memory: for tests of what a worker sets aside."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka.admin import AdminClient

from fluvial.records import RowError
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import DEAD_LETTER, Catalog
from fluvial.schemas.dead_letters import dead_letters
from fluvial.schemas.declarations import Declaration
from fluvial.schemas.registry import Registry
from fluvial.schemas.topics import HANDLED_TOPIC, ensure_topics, topic_specs
from fluvial.services.dead_letter_check import records_of
from fluvial.services.dead_letters import Letter
from fluvial.services.dead_letters import Place as Where
from fluvial.services.ledger import LedgerLine, read_ledger
from fluvial.services.processors import build_worker
from fluvial.services.progress import GroupProgress
from fluvial.services.running import run_apps
from fluvial.settings import KafkaSettings, Settings
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.messages import read_to_end
from fluvial.transport.publisher import OutRecord, Publisher
from support.fake_registry import FakeRegistry, fake_registry
from support.servers import unique_topic

READING = load_schema("fluvial.iot.SensorReading")


@dataclass(frozen=True)
class Place:
    """One pipeline in its own topics. ``environment`` makes the command line see it."""

    settings: Settings
    catalog: Catalog
    topic: str
    registry: FakeRegistry
    environment: dict[str, str]

    def publish(self, records: Sequence[OutRecord], suffix: str = "") -> None:
        """Publish records into the topic, or into the one with a suffix, and wait until Kafka has them."""

        async def publish() -> None:
            async with Publisher(self.settings.kafka) as publisher:
                await (await publisher.publish_records(self.topic + suffix, records))

        asyncio.run(publish())

    def set_aside(self, error_type: str) -> None:
        """Set everything that is in the topic aside, as a worker would do with bad records."""
        records = [
            Letter(
                Where(self.topic, 0, m.offset() or 0, m.timestamp()[1]),
                m.key(),
                m.value(),
                tuple(m.headers() or ()),
                "decode",
                error_type,
                "",
                0,
            )
            for m in read_to_end(self.settings.kafka, self.topic, 1)
        ]
        errors = [RowError(row, "decode", error_type, "as the test wants it") for row in range(len(records))]
        schema = load_schema(DEAD_LETTER)
        with Registry(self.settings.registry) as registry:
            writer = DatumWriter(schema, registry.schema_id(f"{self.topic}.dead-letter-value", schema))
        letters = dead_letters(records_of(records, [r.place.timestamp for r in records]), errors)
        self.publish([OutRecord(d.key, writer.write(d.fields)) for d in letters], ".dead-letter")

    def work(self) -> LedgerLine:
        """Run a worker until it has handled everything that is in the topic; return its ledger."""
        asyncio.run(self._work())
        (line,) = read_ledger(self.settings, self.catalog)
        return line

    async def _work(self) -> None:
        with Registry(self.settings.registry) as registry:
            worker = build_worker(self.settings, self.catalog, registry)
            worker.app.conf.broker_session_timeout = 6.0
            worker.app.conf.broker_heartbeat_interval = 1.0
            worker.app.conf.broker_commit_interval = 0.2
            progress = GroupProgress(self.settings.kafka)

            async def caught_up() -> None:
                await worker.assigned.wait()
                while await asyncio.to_thread(progress.lag, self.settings.worker.group, [self.topic]):  # noqa: ASYNC110 — Kafka is asked
                    await asyncio.sleep(0.05)
                await worker.finish()

            await run_apps([worker.app], caught_up())


@contextmanager
def place_of_its_own(kafka: KafkaSettings, folder: Path) -> Iterator[Place]:
    """Give a pipeline with fresh topics of one partition, and delete them afterwards."""
    name = unique_topic("aside")
    topic = f"{name}.readings"
    pipeline = replace(SENSOR_MINUTE, source=topic, table=replace(SENSOR_MINUTE.table, name=name.replace("-", "_")))
    declaration = folder / "declared.py"
    declaration.write_text(
        "from pathlib import Path\nfrom fluvial.schemas.declarations import *\n"
        f"DECLARATION = Declaration(({pipeline!r},), schema_dir=Path({str(folder)!r}))\n"
    )
    catalog = Catalog([Declaration((pipeline,), schema_dir=folder)])
    kafka = kafka.model_copy(update={"partitions": 1})
    admin = AdminClient(librdkafka_config(kafka))
    with fake_registry() as registry:
        settings = Settings(kafka=kafka)
        settings = settings.model_copy(
            update={
                "registry": settings.registry.model_copy(update={"url": registry.url}),
                "worker": settings.worker.model_copy(update={"group": name}),
            }
        )
        specs = topic_specs(catalog, kafka, name)
        ensure_topics(admin, specs)
        with Registry(settings.registry) as client:
            for t in catalog.topics:
                client.register(t.subject, t.schema)
        environment = {
            "FLUVIAL_KAFKA__BROKERS": kafka.brokers,
            "FLUVIAL_REGISTRY__URL": registry.url,
            "FLUVIAL_WORKER__GROUP": name,
            "FLUVIAL_WORKER__DECLARATIONS": str(declaration),
        }
        yield Place(settings, catalog, topic, registry, environment)
    for future in admin.delete_topics([s.name for s in specs if s.name != HANDLED_TOPIC]).values():
        future.result(30)


def reading(sensor: str, time_ms: int, value: float, sequence: int, schema_id: int = 1) -> bytes:
    """Return a reading in Confluent's format, under a schema id."""
    event = {"sensor_id": sensor, "metric": "m", "site": "", "event_time": time_ms, "value": value, "unit": None}
    return DatumWriter(READING, schema_id).write(event | {"sequence": sequence})


def reading_schema() -> str:
    """Return the readings' schema as a registry keeps it."""
    return json.dumps(READING)
