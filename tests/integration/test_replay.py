"""Replays on real servers: late events repaired, the rest untouched, beside live processing, and through a kill."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from fluvial.oracle.from_cassandra import identity, read_table
from fluvial.oracle.from_kafka import ask_oracle, registry
from fluvial.oracle.records import Row
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Pipeline
from fluvial.schemas.provision import init
from fluvial.schemas.registry import Registry
from fluvial.services.declared import load_catalog
from fluvial.services.replay import ReplayRun, ReplaySummary
from fluvial.services.replay_plan import ReplayRequest
from fluvial.services.replay_writing import has_members
from fluvial.services.together import run_until_caught_up
from fluvial.settings import Settings
from fluvial.stream_apps.replay_rules import NEVER_IDLE_MS, NEVER_LATE_MS
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import OutRecord, Publisher
from support.programs import FLUVIAL
from support.servers import unique_keyspace

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MINUTE, HOUR = 60_000, 3_600_000
NOON = 1_709_294_400_000  # 2024-03-01T12:00:00Z
PROVENANCE = {"generation", "source_partition", "source_offset", "writetime"}

DECLARATION = """
from dataclasses import replace
from pathlib import Path
from fluvial.schemas.declarations import Declaration, Table
from fluvial.stream_apps.shipped import SENSOR_MINUTE

def of(name, days=0):
    return replace(SENSOR_MINUTE, source="{name}.readings", table=Table(name, SENSOR_MINUTE.key, retention_days=days))

DECLARATION = Declaration((of("{name}"), of("{name}_ttl", 1)), schema_dir=Path(__file__).parent)
"""


@dataclass(frozen=True)
class Deployment:
    """A pipeline on a topic of its own, and a second one whose table keeps its rows for a day."""

    settings: Settings
    catalog: Catalog
    environment: dict[str, str]
    folder: Path

    @property
    def pipeline(self) -> Pipeline:
        return self.catalog.pipelines[-2]

    def replay(self, *, dry: bool = False, resume: bool = False, **asked: Any) -> ReplaySummary:
        request = ReplayRequest(**({"pipeline": self.pipeline.name, "begin": NOON, "end": NOON + HOUR // 3} | asked))
        return asyncio.run(ReplayRun(self.settings, self.catalog, request).run(dry=dry, resume=resume))

    def run(self) -> None:
        asyncio.run(run_until_caught_up(self.settings, self.catalog))

    def fluvial(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [FLUVIAL, *arguments],
            env=self.environment | more,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def table(self, name: str = "") -> dict[Any, Row]:
        c = self.settings.cassandra
        rows = read_table([c.contact_points], c.port, c.keyspace, name or self.pipeline.table.name)
        return {identity(self.pipeline, row): row for row in rows}

    def publish(self, readings: list[tuple[str, int, float, int]]) -> None:
        """Publish (sensor, seconds after noon, value, sequence) in this order."""
        schema = load_schema("fluvial.iot.SensorReading")
        with Registry(self.settings.registry) as client:
            writer = DatumWriter(schema, client.schema_id(f"{self.pipeline.source}-value", schema))
        records = [
            OutRecord(
                sensor.encode(),
                writer.write(
                    {"sensor_id": sensor, "metric": "m", "site": "", "event_time": NOON + 1000 * at, "value": value,
                     "unit": None, "sequence": sequence}
                ),
            )
            for sensor, at, value, sequence in readings
        ]  # fmt: skip

        async def send() -> None:
            async with Publisher(self.settings.kafka) as publisher:
                await (await publisher.publish_records(self.pipeline.source, records))

        asyncio.run(send())

    def oracle(self, change: Callable[[Pipeline], Pipeline] = lambda p: p) -> dict[Any, Row]:
        answers = ask_oracle(
            change(self.pipeline), self.settings.kafka.brokers, registry(self.settings.registry.url), exhausted=True
        )
        rows = [row for answer in answers.values() for row in answer.rows]
        return {identity(self.pipeline, row): row for row in rows}


def never_late(pipeline: Pipeline) -> Pipeline:
    return replace(pipeline, lateness_ms=NEVER_LATE_MS, idle_timeout_ms=NEVER_IDLE_MS)


def values(row: Row) -> dict[str, Any]:
    return {name: v for name, v in row.items() if name not in PROVENANCE | {"day"}}


@pytest.fixture(scope="module")
def deployment(cluster_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    name, folder = unique_keyspace("rp")[:30], tmp_path_factory.mktemp("replay")
    (folder / "declared.py").write_text(DECLARATION.replace("{name}", name))
    create = next(
        part
        for part in (Path(__file__).parents[2] / "schemas/001_sensor_tables.cql").read_text().split(";")
        if "sensor_minute" in part
    )
    create = create[create.index("CREATE") :].split("\n    AND comment")[0]
    tables = (create.replace("sensor_minute", n) for n in (name, f"{name}_ttl"))
    (folder / "001.cql").write_text(";\n".join(tables) + ";\n")
    s = cluster_settings
    s = s.model_copy(
        update={
            "cassandra": s.cassandra.model_copy(update={"keyspace": name}),
            "worker": s.worker.model_copy(
                update={
                    "group": f"{name}-worker", "pipelines": f"{name},{name}_ttl", "declarations": str(folder / "declared.py")
                }
            ),
            "sink": s.sink.model_copy(update={"group": f"{name}-sink"}),
        }
    )  # fmt: skip
    changed = {
        "FLUVIAL_KAFKA__BROKERS": s.kafka.brokers, "FLUVIAL_REGISTRY__URL": s.registry.url,
        "FLUVIAL_CASSANDRA__CONTACT_POINTS": s.cassandra.contact_points, "FLUVIAL_CASSANDRA__PORT": str(s.cassandra.port),
        "FLUVIAL_CASSANDRA__KEYSPACE": name, "FLUVIAL_WORKER__GROUP": s.worker.group, "FLUVIAL_SINK__GROUP": s.sink.group,
        "FLUVIAL_WORKER__PIPELINES": s.worker.pipelines, "FLUVIAL_WORKER__DECLARATIONS": s.worker.declarations,
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")} | changed
    catalog = load_catalog(s.worker)
    init(s.kafka, s.registry, s.cassandra, s.worker.group, catalog)
    d = Deployment(s, catalog, environment, folder)
    d.publish([(f"s{n % 5}", 10 * n, n / 7, n) for n in range(240)])  # 40 minutes of five sensors
    late = [(f"s{n % 4}", 95 + 61 * n, 1000.0 + n, 10_000 + n) for n in range(30)]  # half an hour of them, all too late
    d.publish([*late, late[3], late[-1]])
    d.run()
    return d


@pytest.fixture(scope="module")
def live(deployment: Deployment) -> Iterator[None]:
    """A live worker and sink beside the replays; without a ticker, whose time would close windows while we look."""
    d, kafka = deployment, deployment.settings.kafka
    with (d.folder / "live.log").open("wb") as log:
        processes = [
            subprocess.Popen([FLUVIAL, c], env=d.environment, cwd=d.folder, stdout=log, stderr=log)
            for c in ("worker", "sink")
        ]
        try:
            admin, deadline = AdminClient(librdkafka_config(kafka)), time.monotonic() + 180
            while not all(has_members(admin, g) for g in (d.settings.worker.group, d.settings.sink.group)):
                assert all(p.poll() is None for p in processes), (d.folder / "live.log").read_text()
                assert time.monotonic() < deadline, (d.folder / "live.log").read_text()
                time.sleep(0.2)
            yield
        finally:
            for p in processes:
                p.send_signal(signal.SIGTERM)
            for p in processes:
                p.wait(60)


def test_a_replay_under_the_declared_rule_makes_the_rows_that_are_there(deployment: Deployment) -> None:
    there = deployment.table()
    summary = deployment.replay(lateness="declared", into="same")
    side = deployment.table(f"{deployment.pipeline.name}_same")
    assert side
    assert summary.tally.changed == summary.tally.added == 0
    assert summary.tally.unchanged == len(side)
    for at, row in side.items():
        # Also where it comes from: the offset that closed it.
        assert {k: v for k, v in row.items() if k not in ("generation", "writetime")} == {
            k: v for k, v in there[at].items() if k not in ("generation", "writetime")
        }
    compared = deployment.fluvial("compare", deployment.pipeline.name, "same", "--drop")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "0  rows differ" in compared.stdout


def test_replays_repair_what_was_late_and_touch_nothing_else_while_live_processing_goes_on(
    deployment: Deployment, live: None
) -> None:
    before, wanted = deployment.table(), deployment.oracle(never_late)
    begin, end = NOON + 2 * MINUTE + 30_000, NOON + 20 * MINUTE
    dry = deployment.replay(begin=begin, end=end, dry=True)
    assert deployment.table() == before
    summary = deployment.replay(begin=begin, end=end)
    assert summary.in_table is True
    assert (summary.tally, summary.counts) == (dry.tally, dry.counts)
    assert summary.counts.late_events == 19  # 18 of them, and a repeat
    after = deployment.table()
    inside = {at for at in after if begin // MINUTE * MINUTE <= at[2] < end}
    assert {at for at in inside if after[at] != before.get(at)} == {at for at in inside if after[at]["generation"] > 0}
    assert len({at for at in inside if after[at]["generation"] > 0}) == summary.tally.changed + summary.tally.added > 10
    for at in inside:
        assert values(after[at]) == values(wanted[at]) | {"final": True}
    assert {at: row for at, row in after.items() if at not in inside} == {
        at: row for at, row in before.items() if at not in inside
    }
    # Twice more: there is nothing left to do.
    for _ in range(2):
        again = deployment.replay(begin=begin, end=end)
        assert (again.tally.changed, again.tally.added, again.tally.unchanged) == (0, 0, len(inside))
    assert deployment.table() == after


def test_a_side_table_is_compared_and_promoted(deployment: Deployment, live: None) -> None:
    name = deployment.pipeline.name
    made = deployment.fluvial(
        "replay", name, "--from", "2024-03-01T12:20:00Z", "--to", "2024-03-01T12:30:00Z", "--into", "mended"
    )
    assert made.returncode == 0, made.stderr
    compared = deployment.fluvial("compare", name, "mended", "--json")
    assert compared.returncode == 1, compared.stderr
    promoted = deployment.fluvial("promote", name, "mended", "--yes")
    assert promoted.returncode == 0, promoted.stderr
    compared = deployment.fluvial("compare", name, "mended", "--drop")
    assert compared.returncode == 0, compared.stdout
    after, wanted = deployment.table(), deployment.oracle(never_late)
    inside = [at for at in after if NOON + 20 * MINUTE <= at[2] < NOON + 30 * MINUTE]
    assert [values(after[at]) for at in inside] == [values(wanted[at]) | {"final": True} for at in inside]


def test_a_killed_replay_goes_on_with_the_same_generation(deployment: Deployment, live: None) -> None:
    name = deployment.pipeline.name
    deployment.publish([(f"s{n % 5}", 7 + 60 * n, -1.0 - n, 20_000 + n) for n in range(20)])
    span = ("--from", "2024-03-01T12:00:00Z", "--to", "2024-03-01T12:20:00Z")
    killed = deployment.fluvial("replay", name, *span, FLUVIAL_FAILPOINTS="publisher.before-delivery-report=kill@1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    summary = deployment.replay(resume=True)
    assert summary.in_table is True
    after, wanted = deployment.table(), deployment.oracle(never_late)
    inside = [at for at in after if NOON <= at[2] < NOON + 20 * MINUTE]
    assert [values(after[at]) for at in inside] == [values(wanted[at]) | {"final": True} for at in inside]
    assert summary.generation == max(after[at]["generation"] for at in inside)
    assert deployment.fluvial("replay", name, "--resume").returncode == 1  # nothing is unfinished


def test_rows_past_their_retention_are_not_brought_back(deployment: Deployment, live: None) -> None:
    name = f"{deployment.pipeline.name}_ttl"
    for _ in range(2):
        summary = deployment.replay(pipeline=name)
        assert summary.tally.changed == summary.tally.added == 0
        assert summary.tally.expired == summary.counts.windows > 0
    assert deployment.table(name) == {}


def test_live_rows_that_come_after_replays_are_right(deployment: Deployment, live: None) -> None:
    deployment.publish([(f"s{n % 5}", 2400 + 10 * n, n / 3, 30_000 + n) for n in range(120)])
    wanted = {at: row for at, row in deployment.oracle().items() if at[2] >= NOON + 40 * MINUTE and row["final"]}
    deadline = time.monotonic() + 60
    while True:
        after = deployment.table()
        if all(at in after and after[at]["final"] for at in wanted):
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {at: values(after[at]) for at in wanted} == {at: values(row) for at, row in wanted.items()}
