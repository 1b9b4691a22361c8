"""Whole files with a publisher that only takes notes: counts, rejected lines, ticks; and what the command line says."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fluvial.cli import build_app
from fluvial.errors import FluvialError
from fluvial.producers.completion import NONE, Completion
from fluvial.producers.files import open_source
from fluvial.producers.import_plan import ImportRequest
from fluvial.producers.importing import FileProgress, FileSummary, Importer
from fluvial.producers.rejections import RejectedFile
from fluvial.records import Spans
from fluvial.schemas.avro import load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import spans_from_strings
from fluvial.schemas.declarations import Declaration, Pipeline, Table, Tumbling
from fluvial.schemas.encoder import Encoder
from fluvial.services.importing import completing_pipelines, event_topic, import_files, plan_for, rejected_path
from fluvial.settings import Settings
from fluvial.stream_apps.shipped import DECLARATION
from fluvial.transport.publisher import OutRecord
from support.importing import DATA, EDITS, MICROCLIMATE, POST, READING, plan

CATALOG = Catalog([DECLARATION])


class Publisher:
    """Takes notes of what is published, in order."""

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []
        self.records: list[OutRecord | str] = []

    async def publish(self, topic: str, keys: Spans, values: Spans) -> None:
        assert len(keys) == len(values)
        self.keys += [keys.bytes_at(i) for i in range(len(keys))]

    async def publish_records(self, topic: str, records: Sequence[OutRecord]) -> None:
        self.records += records

    async def flush(self) -> None:
        self.records.append("flush")


def importer(publisher: Publisher, request: ImportRequest, path: Path, event: str = READING) -> Importer:
    checked = plan(request, event, [open_source(path)])
    encoder = Encoder(load_schema(event), 1)
    return Importer(publisher, "t", checked, encoder, "event_time")  # type: ignore[arg-type]


async def imported(
    publisher: Publisher, request: ImportRequest, path: Path, rejected: Path, event: str = READING
) -> FileSummary:
    return await importer(publisher, request, path, event).import_file(
        open_source(path), RejectedFile(rejected), lambda _: None
    )


async def test_every_line_is_an_event_or_counted_and_the_bad_ones_are_kept(tmp_path: Path) -> None:
    publisher, seen = Publisher(), list[FileProgress]()
    path, kept = DATA / "microclimate.csv", tmp_path / "kept.ndjson"
    kept.write_text("of an earlier import\n")
    made = importer(publisher, MICROCLIMATE, path)
    summary = await made.import_file(open_source(path), RejectedFile(kept), seen.append)
    assert (summary.lines, summary.rejected, summary.empty) == (41, 5, 0)
    assert summary.events + summary.nulls == 3 * (41 - 5)
    assert len(publisher.keys) == summary.events
    assert set(publisher.keys) == {b"north", b"south", b"east"}
    assert sum(summary.reasons.values()) == 5
    lines = [json.loads(x) for x in kept.read_text().splitlines()]
    assert [x["line"] for x in lines] == [9, 16, 21, 27, 31]
    assert lines[0] == {"line": 9, "reason": "3 fields where the header has 6", "raw": "north,too,few"}
    assert seen[-1].position == path.stat().st_size
    assert made.latest.result()[1].tolist() == [1711853100000] * 3


async def test_without_bad_lines_there_is_no_file_of_them(tmp_path: Path) -> None:
    kept = tmp_path / "kept.ndjson"
    kept.write_text("of an earlier import\n")
    summary = await imported(Publisher(), EDITS, DATA / "edits.ndjson", kept, POST)
    assert (summary.events, summary.rejected) == (40, 0)
    assert not kept.exists()


async def test_an_event_that_kafka_would_refuse_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "f.ndjson"
    base = {"post_id": "1", "author_id": "a", "network": "n", "event_time": 1, "hashtags": []}
    path.write_text("\n".join(json.dumps({**base, "text": "x" * n}) for n in (10, 1_000_000, 20)))
    publisher = Publisher()
    summary = await imported(publisher, ImportRequest(), path, tmp_path / "kept.ndjson", POST)
    assert (summary.lines, summary.events, summary.rejected) == (3, 2, 1)
    assert list(summary.reasons) == ["larger than 900000 bytes when encoded"]
    assert len(publisher.keys) == 2


async def test_partition_ticks_follow_when_all_keyed_ticks_are_acknowledged() -> None:
    publisher = Publisher()
    made = importer(publisher, MICROCLIMATE, DATA / "microclimate.csv")
    keys = spans_from_strings(["a", "b"])
    ticks = await made.complete(Completion(keys, np.array([10, 20]), np.array([20, NONE, -5])))
    assert ticks == 4
    assert publisher.records == [
        OutRecord(b"a", None, (("fluvial-tick", b"10"),)),
        OutRecord(b"b", None, (("fluvial-tick", b"20"),)),
        "flush",
        OutRecord(None, None, (("fluvial-tick", b"20"),), 0),
        OutRecord(None, None, (("fluvial-tick", b"-5"),), 2),
        "flush",
    ]


def test_the_record_key_is_the_first_field_that_all_keys_share() -> None:
    assert event_topic(CATALOG, "iot.readings").key == "sensor_id"
    assert event_topic(CATALOG, "iot.readings").not_empty == {"sensor_id", "metric"}
    assert event_topic(CATALOG, "social.posts").key == "author_id"
    assert event_topic(CATALOG, "mine", READING).key == "sensor_id"
    assert event_topic(CATALOG, "mine", READING, "site").key == "site"
    by_site = Pipeline("iot.readings", READING, ("site",), Tumbling(60_000), ("count",), Table("sites", ("site",)))
    disagreeing = Catalog([DECLARATION, Declaration((by_site,))])
    with pytest.raises(FluvialError, match=r"what is the record key.*--key"):
        event_topic(disagreeing, "iot.readings")


@pytest.mark.parametrize(
    ("topic", "event", "told"),
    [
        ("nope", None, "event topics are iot.readings, social.posts"),
        ("fluvial.sensor_minute", None, "no pipeline reads"),
        ("nope", "fluvial.Nope", "no Avro file for fluvial.Nope"),
        ("iot.readings", POST, "holds fluvial.iot.SensorReading"),
    ],
)
def test_a_topic_that_nobody_knows_is_refused(topic: str, event: str | None, told: str) -> None:
    with pytest.raises(FluvialError, match=told):
        event_topic(CATALOG, topic, event)


def test_only_a_topic_with_pipelines_can_be_completed() -> None:
    assert completing_pipelines(CATALOG, event_topic(CATALOG, "iot.readings")) == CATALOG.pipelines
    with pytest.raises(FluvialError, match="no pipeline reads topic mine"):
        completing_pipelines(CATALOG, event_topic(CATALOG, "mine", READING))


def test_rejected_lines_go_beside_the_file_or_where_they_are_told_to(tmp_path: Path) -> None:
    assert rejected_path(tmp_path / "a.csv.gz", None) == tmp_path / "a.csv.gz.rejected.ndjson"
    assert rejected_path(tmp_path / "a.csv", Path("x")) == Path("x/a.csv.rejected.ndjson")
    assert rejected_path(tmp_path / "missing" / "a.csv", None) == Path("a.csv.rejected.ndjson")


async def test_two_files_do_not_share_a_file_of_rejected_lines(tmp_path: Path) -> None:
    source = open_source(DATA / "microclimate.csv")
    into = event_topic(CATALOG, "iot.readings")
    checked = plan_for(into, MICROCLIMATE, [source])
    with pytest.raises(FluvialError, match="two files would keep their rejected lines"):
        await import_files(Settings(), CATALOG, into, checked, [source, source], rejected_directory=tmp_path)


OPTIONS = ["--map", "sensor_id=site", "--map", "event_time=date_time", "--melt", "ambient_temperature,wind_speed"]


def test_a_dry_run_shows_events_and_what_would_be_rejected() -> None:
    result = CliRunner().invoke(
        build_app(), ["import", "iot.readings", str(DATA / "microclimate.csv"), *OPTIONS, "--dry-run"]
    )
    assert result.exit_code == 0, result.output
    assert "north      north  ambient_temperature  2024-03-31T00:00:00.000Z  10     null  null" in result.output
    assert "The first 41 lines become" in result.output
    assert "line 9: 3 fields where the header has 6" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--map", "sensor_id"], "is not FIELD="),
        (["--constant", "unit=x", "--constant", "unit=y"], "given twice"),
        (["--timezone", "Berlin"], "no time zone"),
        (["--delimiter", ";;"], "one character"),
    ],
)
def test_options_that_make_no_sense_are_explained(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(build_app(), ["import", "iot.readings", str(DATA / "microclimate.csv"), *arguments])
    assert result.exit_code == 2
    assert told in result.output


def test_simulations_need_an_end_and_a_start_that_is_an_instant() -> None:
    result = CliRunner().invoke(build_app(), ["simulate", "sensors"])
    assert isinstance(result.exception, FluvialError)
    assert "needs an end" in str(result.exception)
    result = CliRunner().invoke(build_app(), ["simulate", "sensors", "--events", "1", "--start", "2024-01-01"])
    assert result.exit_code == 2
    assert "is no instant" in result.output
