"""Events as typed columns in an archive: what an analyst finds there."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fluvial.archive.reader import ArchiveError, read_archive
from fluvial.archive.writer import PartitionWriter
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.sources import SchemaMap
from fluvial.services.archived_events import event_rows
from fluvial.transport.parse import parse
from fluvial.transport.walk import walk
from support.record_batches import Rec, build

READING = load_schema("fluvial.iot.SensorReading")
AT = 1_767_225_600_123


def written(directory: Path, values: list[bytes | None]) -> list[dict[str, object]]:
    raw = build([Rec(i, 1_000 + i, b"k", v) for i, v in enumerate(values)])
    headers = walk(raw)
    records = parse("iot.readings", 0, 0, raw, headers, np.arange(1), len(values))
    rows = event_rows(READING, SchemaMap({7: READING}))
    writer = PartitionWriter(directory, "iot.readings", 0, rows=rows)
    writer.begin(0)
    writer.write(records, np.zeros(len(values), np.bool_))
    writer.finish_file()
    found: list[dict[str, object]] = pq.read_table(directory).to_pylist()
    return found


def test_events_have_the_types_of_their_schema_and_bad_records_their_reason(tmp_path: Path) -> None:
    event = {
        "sensor_id": "s",
        "metric": "m",
        "site": "",
        "event_time": AT,
        "value": 1.5,
        "unit": None,
        "sequence": None,
    }
    good = DatumWriter(READING, 7).write(event)
    first, second, third = written(tmp_path, [good, None, b"rubbish", good])
    assert first == third | {"offset": 0, "timestamp": first["timestamp"]}
    assert (first["sensor_id"], first["value"], first["unit"], first["sequence"]) == ("s", 1.5, None, None)
    assert first["event_time"] == datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)
    assert (first["record_key"], first["decode_error"]) == (b"k", None)
    assert second["offset"] == 2
    assert second["decode_error"]
    assert second["sensor_id"] is second["value"] is second["event_time"] is None
    assert third["offset"] == 3


def test_decoded_events_are_not_replayed_nor_mixed_with_records(tmp_path: Path) -> None:
    written(tmp_path, [None])
    with pytest.raises(ArchiveError, match="holds decoded events"):
        list(read_archive(tmp_path, "iot.readings", 0))
    with pytest.raises(ArchiveError, match="holds events, not records"):
        PartitionWriter(tmp_path, "iot.readings", 0)
