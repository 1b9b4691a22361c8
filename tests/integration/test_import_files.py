"""Files through `fluvial import` into a real Kafka: everything is there, once, under its key; the ticks close it all.

The small samples of tests/data are always imported. Real data of the same shapes (not part of this repository: other
licences, and size) is imported as well where it is found: in $SHARED_DATA_DIR, or in ../shared/data.
"""

import csv
import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fluvial.oracle.from_kafka import partitions_of, read_partition
from fluvial.oracle.from_kafka import registry as schemas_by_id
from fluvial.oracle.oracle import run
from fluvial.oracle.records import Record
from fluvial.producers.files import open_source
from fluvial.producers.import_plan import ImportRequest
from fluvial.schemas.avro import load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.columns import spans_from_strings
from fluvial.schemas.declarations import Declaration
from fluvial.schemas.registry import Registry
from fluvial.services.importing import ImportSummary, completing_pipelines, event_topic, import_files, plan_for
from fluvial.settings import KafkaSettings, RegistrySettings, Settings
from fluvial.stream_apps.shipped import AUTHOR_SESSIONS, SENSOR_HOUR, SENSOR_MINUTE
from fluvial.transport.murmur2 import partition_for
from support.importing import DATA, EDITS, MICROCLIMATE, POST, READING, UPLINKS
from support.transport import fresh_topic

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SHARED = Path(os.environ.get("SHARED_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
MELBOURNE = ("ambient_temperature", "relative_humidity", "barometric_pressure", "wind_speed", "pm2.5", "pm10")
REAL_EDITS = replace(EDITS, hashes={"post_id": ("time", "channel", "user", "page", "delta")})
PARTITIONS = 4
ASK_ORACLE = 1_000


def files(pattern: str) -> list[Path]:
    """Return samples, or real files; skip where they are not there."""
    found = sorted(DATA.glob(pattern)) or sorted(SHARED.glob(pattern))
    if not found:
        pytest.skip(f"no {pattern} in {SHARED} (set SHARED_DATA_DIR)")
    return found


@pytest.fixture
def settings(kafka: KafkaSettings, registry: RegistrySettings) -> Settings:
    """Settings that lead to both servers."""
    return Settings(kafka=kafka, registry=registry)


@pytest.fixture
def into(kafka: KafkaSettings) -> Iterator[str]:
    """A topic of this test."""
    with fresh_topic(kafka, PARTITIONS) as topic:
        yield topic


async def imported(
    settings: Settings, topic: str, event: str, request: ImportRequest, paths: list[Path], rejected: Path
) -> tuple[ImportSummary, dict[int, list[Record]], Catalog]:
    """Import files and complete them; return what was told, what is in each partition, and the pipelines."""
    pipelines = [AUTHOR_SESSIONS] if event == POST else [SENSOR_MINUTE, SENSOR_HOUR]
    # Counting is enough here, and the oracle is quick at it.
    counting = tuple(replace(p, source=topic, aggregates=("count",), early_ms=0) for p in pipelines)
    catalog = Catalog([Declaration(counting)])
    target = event_topic(catalog, topic)
    with Registry(settings.registry) as registry:
        registry.register(f"{topic}-value", load_schema(event))
    sources = [open_source(p) for p in paths]
    summary = await import_files(
        settings,
        catalog,
        target,
        plan_for(target, request, sources),
        sources,
        completing=completing_pipelines(catalog, target),
        rejected_directory=rejected,
    )
    schemas, brokers = schemas_by_id(settings.registry.url), settings.kafka.brokers
    found = {p: read_partition(brokers, schemas, topic, p) for p in partitions_of(brokers, topic)}
    return summary, found, catalog


def events_of(found: dict[int, list[Record]], key: str) -> list[dict[str, Any]]:
    """Return all events; each is keyed by a field and where Java's partitioner puts it."""
    events = []
    for partition, records in found.items():
        own = [r for r in records if r.kind == "event"]
        assert all(r.event is not None and r.key == r.event[key].encode() for r in own)
        keys = spans_from_strings([r.key for r in own])
        assert (partition_for(keys, PARTITIONS) == partition).all()
        events += [dict(r.event or {}) for r in own]
    return events


def everything_is_closed(found: dict[int, list[Record]], catalog: Catalog, summary: ImportSummary) -> None:
    """Assert that the ticks came last, and that the oracle has no open window after them.

    The oracle is slow: of many records it is asked about the smallest partition alone.
    """
    ticks = 0
    smallest = min((p for p in found if found[p]), key=lambda p: len(found[p]))
    for partition, records in found.items():
        kinds = [r.kind for r in records]
        first = next((i for i, k in enumerate(kinds) if k != "event"), len(kinds))
        keyed = [r for r in records[first:] if r.kind == "keyed_tick"]
        assert kinds[first:] == ["keyed_tick"] * len(keyed) + ["tick"] * bool(first)
        assert {r.key for r in keyed} == {r.key for r in records[:first]}
        ticks += len(kinds) - first
        for pipeline in catalog.pipelines if len(records) < ASK_ORACLE or partition == smallest else ():
            result = run(pipeline, records, partition=partition, exhausted=True)
            assert all(row["final"] for row in result.rows)
            assert result.ledger.dead_lettered == 0
            if pipeline.time == "key":
                assert result.ledger.aggregated + result.ledger.duplicates + result.ledger.late == first
    assert ticks == summary.ticks


@pytest.mark.parametrize(
    ("pattern", "request_"),
    [
        ("microclimate.csv", MICROCLIMATE),
        ("melbourne-microclimate/*.csv.gz", replace(MICROCLIMATE, melt=MELBOURNE)),
    ],
)
async def test_street_sensors_side_by_side_become_readings(
    pattern: str, request_: ImportRequest, settings: Settings, into: str, tmp_path: Path
) -> None:
    (path,) = files(pattern)
    summary, found, catalog = await imported(settings, into, READING, request_, [path], tmp_path)
    events = events_of(found, "sensor_id")
    bad = _rejected_lines(tmp_path)
    expected: Counter[tuple[str, str, int, float]] = Counter()
    nulls = 0
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            if number in bad:
                continue
            at = int(datetime.fromisoformat(row["date_time"]).timestamp()) * 1000
            for metric in request_.melt:
                if row[metric]:
                    expected[row["site"], metric, at, float(row[metric])] += 1
                else:
                    nulls += 1
    assert Counter((e["sensor_id"], e["metric"], e["event_time"], e["value"]) for e in events) == expected
    (told,) = summary.files
    assert (told.events, told.nulls, told.rejected) == (expected.total(), nulls, len(bad))
    everything_is_closed(found, catalog, summary)
    if path.is_relative_to(SHARED):
        assert (told.lines, told.events, told.nulls, told.rejected) == (32_253, 157_218, 36_300, 0)


@pytest.mark.parametrize("pattern", ["uplinks.ndjson", "campusiot-lorawan/*.ndjson.gz"])
async def test_radio_frames_become_readings_with_the_frame_counter(
    pattern: str, settings: Settings, into: str, tmp_path: Path
) -> None:
    paths = files(pattern)
    summary, found, catalog = await imported(settings, into, READING, UPLINKS, paths, tmp_path)
    events = events_of(found, "sensor_id")
    expected: Counter[tuple[str, int, int, str, float]] = Counter()
    for path in paths:
        bad = _rejected_lines(tmp_path, path)
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, 1):
                if line.strip() and number not in bad:
                    frame = json.loads(line)
                    payload = (frame.get("decoded") or {}).get("payload")
                    for metric, value in _numbers(payload):
                        expected[frame["dev_eui"], frame["fcnt"], frame["reported_at"], metric, float(value)] += 1
    made = Counter((e["sensor_id"], e["sequence"], e["event_time"], e["metric"], e["value"]) for e in events)
    assert made == expected
    assert summary.events == expected.total()
    everything_is_closed(found, catalog, summary)
    if paths[0].is_relative_to(SHARED):
        assert [f.lines for f in summary.files] == [8_110, 16_954, 13_352]
        assert summary.events == 262_980


@pytest.mark.parametrize("pattern", ["edits.ndjson", "wikipedia-edits-2015/*.json.gz"])
async def test_edits_become_posts_of_one_hashtag(pattern: str, settings: Settings, into: str, tmp_path: Path) -> None:
    (path,) = files(pattern)
    request = REAL_EDITS if path.is_relative_to(SHARED) else EDITS
    summary, found, catalog = await imported(settings, into, POST, request, [path], tmp_path)
    events = events_of(found, "author_id")
    expected: Counter[tuple[Any, ...]] = Counter()
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in file:
            e = json.loads(line)
            at = round(datetime.fromisoformat(e["time"]).timestamp() * 1000)
            expected[e["user"], e["channel"], at, e["comment"], e["page"]] += 1
    made = Counter(
        (e["author_id"], e["network"], e["event_time"], e["text"], *(e["hashtags"] or [None])) for e in events
    )
    assert made == expected
    assert summary.events == expected.total()
    assert not _rejected_lines(tmp_path)
    everything_is_closed(found, catalog, summary)
    if path.is_relative_to(SHARED):
        assert summary.events == 39_244


def _rejected_lines(directory: Path, path: Path | None = None) -> set[int]:
    pattern = f"{path.name}.rejected.ndjson" if path else "*.rejected.ndjson"
    return {json.loads(line)["line"] for f in directory.glob(pattern) for line in f.read_text().splitlines()}


def _numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict):
                yield from _numbers(inner, f"{prefix}{key}.")
            elif isinstance(inner, int | float) and not isinstance(inner, bool):
                yield prefix + key, inner
