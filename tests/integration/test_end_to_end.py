"""Real data through the command line, real servers and every shipped pipeline, against the oracle cell by cell."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fluvial.oracle.from_cassandra import compare, read_table
from fluvial.oracle.from_kafka import ask_oracle, registry
from fluvial.schemas.declarations import Pipeline
from fluvial.services.progress import GroupProgress
from fluvial.settings import Settings
from fluvial.stream_apps.plan import plan_topics
from fluvial.stream_apps.shipped import DECLARATION
from support.programs import FLUVIAL
from support.servers import unique_keyspace

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FLUVIAL_TEST_DATA", ROOT.parent / "shared" / "data"))
MELBOURNE = DATA / "melbourne-microclimate" / "melbweather.csv.gz"
# The one of the three files with real repeats, counter drops and late frames.
LORAWAN = DATA / "campusiot-lorawan" / "Helium_FTD_0018B20000020.ndjson.gz"
WIKIPEDIA = DATA / "wikipedia-edits-2015" / "wikiticker-2015-09-12-sampled.json.gz"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not MELBOURNE.exists(), reason=f"the real data sets are not at {DATA} (FLUVIAL_TEST_DATA)"),
]


@dataclass(frozen=True)
class Deployment:
    """The command line, pointed at the test's servers and at a keyspace and groups of its own."""

    settings: Settings
    environment: dict[str, str]
    folder: Path

    def fluvial(self, *arguments: str) -> str:
        """Run a command to its end and return its stdout."""
        done = subprocess.run(
            [FLUVIAL, *arguments], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"fluvial {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def started(self, command: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command beside the test; whatever is left of it is killed."""
        with (self.folder / f"{command.name}-{time.monotonic_ns()}.log").open("wb") as log:
            process = subprocess.Popen(
                [command, *arguments], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def deployment(cluster_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    name = unique_keyspace("e2e")
    s = cluster_settings
    changed = {
        "FLUVIAL_KAFKA__BROKERS": s.kafka.brokers, "FLUVIAL_REGISTRY__URL": s.registry.url,
        "FLUVIAL_CASSANDRA__CONTACT_POINTS": s.cassandra.contact_points, "FLUVIAL_CASSANDRA__PORT": str(s.cassandra.port),
        "FLUVIAL_CASSANDRA__KEYSPACE": name, "FLUVIAL_WORKER__GROUP": f"{name}-worker", "FLUVIAL_SINK__GROUP": f"{name}-sink",
        "FLUVIAL_WORKER__CHECKPOINT_SECONDS": "0.5",
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")} | changed
    folder = tmp_path_factory.mktemp("e2e")
    deployment = Deployment(s, environment, folder)
    deployment.fluvial("init")
    import_all(deployment)
    return deployment


def import_all(d: Deployment) -> None:
    def into(topic: str, *arguments: str | Path, **fields: str) -> None:
        mapped = [x for field, column in fields.items() for x in ("--map", f"{field}={column}")]
        d.fluvial("import", topic, *map(str, arguments), *mapped, "--complete", "--rejected", ".")

    measures = "ambient_temperature,relative_humidity,barometric_pressure,wind_speed,pm2.5,pm10"
    into("iot.readings", MELBOURNE, "--melt", measures, sensor_id="site", event_time="date_time")
    into(
        "iot.readings",
        LORAWAN,
        "--melt",
        "decoded.payload.*",
        sensor_id="dev_eui",
        sequence="fcnt",
        event_time="reported_at",
    )
    post = {"author_id": "user", "network": "channel", "hashtags": "page", "text": "comment", "event_time": "time"}
    into("social.posts", WIKIPEDIA, "--format", "ndjson", "--hash", "post_id=time,user,page", **post)


def differences(d: Deployment, pipeline: Pipeline) -> tuple[int, list[str]]:
    """Return how many rows the oracle finds for a pipeline, and every cell of the table that differs from it."""
    plan = plan_topics(DECLARATION.pipelines)[pipeline.source]
    upstream = 0
    if plan.upstream is not None:
        upstream = len(GroupProgress(d.settings.kafka).positions("nobody", [plan.upstream]))
    answers = ask_oracle(
        pipeline,
        d.settings.kafka.brokers,
        registry(d.settings.registry.url),
        upstream_partitions=upstream,
        exhausted=True,
    )
    rows = [row for answer in answers.values() for row in answer.rows]
    c = d.settings.cassandra
    table = read_table(
        c.contact_points.split(","), c.port, d.environment["FLUVIAL_CASSANDRA__KEYSPACE"], pipeline.table.name
    )
    return len(table), compare(pipeline, rows, table)


def wait_until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def test_every_table_equals_the_oracle_after_a_worker_is_stopped_and_another_killed_in_the_middle(
    deployment: Deployment,
) -> None:
    progress, group = GroupProgress(deployment.settings.kafka), deployment.environment["FLUVIAL_WORKER__GROUP"]
    topics = list(plan_topics(DECLARATION.pipelines))

    def handled() -> int:
        return sum(max(p.committed, 0) for p in progress.positions(group, topics))

    faust = FLUVIAL.with_name("faust")
    stopped_by_faust = (signal.SIGTERM, faust, "-A", "fluvial.stream_apps", "worker", "-l", "warn", "--without-web")
    for how, command, *arguments in (stopped_by_faust, (signal.SIGKILL, FLUVIAL, "worker")):
        before = handled()
        with deployment.started(command, *arguments) as worker:
            wait_until(lambda b=before: handled() > b or worker.poll() is not None, 90, "the worker handles something")
            assert worker.poll() is None
            worker.send_signal(how)
            assert worker.wait(60) == (0 if how == signal.SIGTERM else -how)
    deployment.fluvial("run", "--until-caught-up")
    for pipeline in DECLARATION.pipelines:
        rows, different = differences(deployment, pipeline)
        assert rows > 0, pipeline.name
        assert different == [], f"{pipeline.name}: {len(different)} differences"


def test_a_second_run_changes_nothing(deployment: Deployment) -> None:
    deployment.fluvial("run", "--until-caught-up")
    for pipeline in DECLARATION.pipelines[-2:]:
        assert differences(deployment, pipeline)[1] == []


def test_the_results_can_be_asked_for(deployment: Deployment) -> None:
    span = ("--from", "2020-01-01", "--to", "2020-01-02", "--format", "json")
    out = deployment.fluvial("query", "sensor_hour", "arc1045", "ambient_temperature", *span)
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 24
    assert all(r["final"] for r in rows)
