"""From files to events: mapped, melted, hashed; bad lines set aside with reasons, nothing lost without a count."""

import csv
import json
import math
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.errors import FluvialError
from fluvial.producers import ndjson_file
from fluvial.producers.cells import column_of
from fluvial.producers.fields import Field
from fluvial.producers.files import open_source
from fluvial.producers.import_plan import ImportRequest
from fluvial.producers.importing import preview
from fluvial.producers.rejections import Faults
from fluvial.producers.times import TimeRules
from support.importing import (
    DATA,
    EDITS,
    MICROCLIMATE,
    POST,
    READING,
    UPLINKS,
    built,
    events,
    plan,
    rejected,
    values,
)


def refusal(path: Path, request: ImportRequest, event: str = READING) -> str:
    with pytest.raises(FluvialError) as e:
        plan(request, event, [open_source(path)])
    return str(e.value)


def test_a_wide_csv_becomes_one_reading_per_measure_and_bad_lines_are_kept() -> None:
    chunks = built(DATA / "microclimate.csv", MICROCLIMATE)
    made = events(chunks)
    assert made[0] == {
        "sensor_id": "north", "site": "north", "metric": "ambient_temperature", "event_time": 1711843200000,
        "value": 10.0, "unit": None, "sequence": None,
    }  # fmt: skip
    assert [e["metric"] for e in made[:5]] == [
        "ambient_temperature",
        "pm2.5",
        "ambient_temperature",
        "wind_speed",
        "pm2.5",
    ]
    assert [(r.line, r.reason) for r in rejected(chunks)] == [
        (9, "3 fields where the header has 6"),
        (16, "value (column ambient_temperature): not a finite number"),
        (21, "event_time (column date_time): not an ISO 8601 time or an epoch number"),
        (27, "sensor_id (column site): missing"),
        (31, "value (column ambient_temperature): not a finite number"),
    ]
    lines = (DATA / "microclimate.csv").read_text().splitlines()
    assert [r.raw for r in rejected(chunks)] == [lines[r.line - 1] for r in rejected(chunks)]
    bad = {r.line for r in rejected(chunks)}
    good = [cells for n, cells in enumerate(csv.reader(lines), 1) if n > 1 and n not in bad]
    measures = [cell for cells in good for cell in cells[3:]]
    (chunk,) = chunks
    assert (chunk.lines, chunk.empty) == (len(lines) - 1, 0)
    assert [e["value"] for e in made] == [float(cell) for cell in measures if cell]
    assert chunk.nulls == measures.count("")


def test_nested_numbers_become_readings_and_the_frame_counter_their_sequence() -> None:
    chunks = built(DATA / "uplinks.ndjson", UPLINKS)
    made = events(chunks)
    assert {e["metric"] for e in made} == {"temperature", "battery", "humidity", "position.lat", "position.lon"}
    assert made[0] == {
        "sensor_id": "00AA0000", "site": "", "metric": "humidity", "event_time": 1700000000123, "value": 50.0,
        "unit": None, "sequence": 0,
    }  # fmt: skip
    bad = {r.line for r in rejected(chunks)}
    lines = enumerate((DATA / "uplinks.ndjson").read_text().splitlines(), 1)
    payloads = [json.loads(x)["decoded"]["payload"] for n, x in lines if x and n not in bad]
    numbers = sum(sum(type(v) in (int, float) for v in p.values()) + len(p.get("position", {})) for p in payloads)
    assert len(made) == numbers
    assert sum(c.empty for c in chunks) == sum(not p for p in payloads)
    assert [(r.line, r.reason.partition(":")[0]) for r in rejected(chunks)] == [
        (5, "not JSON"),
        (10, "not a JSON object"),
        (13, "sensor_id (column dev_eui)"),
        (21, "value (column temperature)"),
    ]


def test_an_explicit_path_melts_to_its_last_name_and_lists_are_addressed_by_position() -> None:
    request = ImportRequest(
        columns={"sensor_id": "gateways.0.id", "event_time": "reported_at"},
        constants={"unit": "dBm", "site": "roof"},
        melt=("gateways.0.rssi", "degrees=decoded.payload.temperature"),
    )
    made = events(built(DATA / "uplinks.ndjson", request))
    assert {e["metric"] for e in made} == {"rssi", "degrees"}
    assert made[0]["sensor_id"] == "gw-0"
    assert {(e["unit"], e["site"]) for e in made} == {("dBm", "roof")}


def test_edits_become_posts_with_one_hashtag_and_an_identity_of_their_own() -> None:
    chunks = built(DATA / "edits.ndjson", EDITS, POST)
    made = events(chunks)
    assert not rejected(chunks)
    assert len(made) == 40
    assert made[1] == {
        "post_id": made[1]["post_id"], "author_id": "user 1", "network": "#de.wikipedia",
        "event_time": 1442016067001, "text": "", "language": None, "hashtags": ["Page 1"], "reply_to": None,
    }  # fmt: skip
    assert made[0]["hashtags"] == []
    assert len({e["post_id"] for e in made}) == 40
    again = events(built(DATA / "edits.ndjson", EDITS, POST))
    assert [e["post_id"] for e in again] == [e["post_id"] for e in made]


def test_what_does_not_exist_is_refused_up_front_and_told_what_does() -> None:
    wide, ndjson = DATA / "microclimate.csv", DATA / "uplinks.ndjson"
    columns = {"sensor_id": "site", "event_time": "date_time"}
    told = refusal(wide, ImportRequest(columns={"sensor_id": "sit", "event_time": "date_time"}, melt=("wind_speed",)))
    assert "has no column sit; did you mean site? columns are site, address, date_time" in told
    told = refusal(wide, ImportRequest(columns={**columns, "sensr": "site"}))
    assert "the event has no field sensr; did you mean sensor_id? fields are sensor_id, site, metric" in told
    told = refusal(wide, ImportRequest(columns=columns))
    assert (
        "the event needs metric and value; say where from: --map metric=COLUMN --map value=COLUMN; columns are site"
        in told
    )
    assert "has no column wind" in refusal(wide, ImportRequest(columns=columns, melt=("wind",)))
    assert "filled by --melt and by --constant" in refusal(
        wide, ImportRequest(columns=columns, melt=("pm2.5",), constants={"metric": "x"})
    )
    assert "has no typed numbers there" in refusal(wide, ImportRequest(columns=columns, melt=("*",)))
    assert "has no column dev" in refusal(ndjson, ImportRequest(columns={"sensor_id": "dev"}))
    assert "would both be the metric a" in refusal(
        wide, ImportRequest(columns=columns, melt=("a=pm2.5", "a=wind_speed"))
    )
    assert "not a finite number" in refusal(
        wide, ImportRequest(columns=columns, constants={"value": "x", "metric": "y"})
    )
    assert "is not a text" in refusal(wide, ImportRequest(columns=columns, hashes={"sequence": ("site",)}))
    assert "needs an event with a text field metric" in refusal(
        DATA / "edits.ndjson", ImportRequest(melt=("delta",)), POST
    )
    with pytest.raises(FluvialError, match="known suffixes"):
        open_source(DATA / "README.md")


def test_times_without_a_zone_are_refused_up_front(tmp_path: Path) -> None:
    path = tmp_path / "local.csv"
    path.write_text("sensor_id,metric,value,event_time\na,t,1,2024-01-01T00:00:00\n")
    source = open_source(path)
    with pytest.raises(FluvialError, match=r"line 2: .*no zone.*--timezone"):
        preview([source], plan(ImportRequest(), READING, [source]))
    zoned = ImportRequest(times=TimeRules(ZoneInfo("Europe/Berlin")))
    assert events(built(path, zoned))[0]["event_time"] == 1704063600000


def test_null_means_the_default_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "f.ndjson"
    path.write_text('{"sensor_id": "a", "metric": "t", "value": "NA", "event_time": 1, "site": null}\n')
    (chunk,) = built(path, ImportRequest())
    assert [r.reason for r in chunk.rejected] == ["value: missing"]
    path.write_text(
        '{"sensor_id": 7, "metric": "t", "value": " 1e3 ", "event_time": 1, "site": null, "sequence": 3.0}\n'
    )
    (event,) = events(built(path, ImportRequest()))
    assert event == {
        "sensor_id": "7", "site": "", "metric": "t", "event_time": 1000, "value": 1000.0, "unit": None, "sequence": 3,
    }  # fmt: skip


def test_sentinels_can_be_named_as_null(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("sensor_id,event_time,a,b\nx,2024-01-01T00:00:00Z,-999,1\ny,2024-01-01T00:00:00Z,2,NA\n")
    chunks = built(path, ImportRequest(melt=("a", "b"), nulls=("-999", "NA")))
    assert [(e["sensor_id"], e["metric"], e["value"]) for e in events(chunks)] == [("x", "b", 1.0), ("y", "a", 2.0)]
    assert chunks[0].nulls == 2


def test_keys_must_not_be_empty_and_bytes_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b'sensor_id,metric,value,event_time\n"",t,1,5\n\xff,t,1,5\na,t,1,5\n')
    chunks = built(path, ImportRequest())
    assert [(r.line, r.reason, r.raw) for r in rejected(chunks)] == [
        (2, "sensor_id: empty", '"",t,1,5'),
        (3, "sensor_id: not UTF-8", "\\xff,t,1,5"),
    ]
    assert len(events(chunks)) == 1


NUMBER_TEXT = st.one_of(
    st.floats().map(repr), st.integers(-(2**70), 2**70).map(str), st.text("+-.0123456789exXnaif ", max_size=8)
)


@given(st.lists(NUMBER_TEXT, min_size=1, max_size=6))
def test_a_number_means_the_same_whatever_stands_beside_it(texts: list[str]) -> None:
    for field in (Field("f", "number", nullable=True), Field("f", "integer", nullable=True)):

        def read(cells: list[bytes], field: Field = field) -> list[object]:
            faults = Faults(len(cells))
            column = column_of(pa.array(cells, pa.binary()), field, TimeRules(), ("NA",), faults, "f")
            good = faults.good.tolist()
            return [v if ok else "bad" for v, ok in zip(values(column), good, strict=True)]

        cells = [t.encode() for t in texts]
        alone = [read([c])[0] for c in cells]
        assert read(cells) == alone
        for text, value in zip(texts, alone, strict=True):
            if isinstance(value, float):
                assert value == float(text)
                assert math.isfinite(value)
            elif isinstance(value, int):
                assert value == int(text)


@pytest.mark.parametrize("block", [50, 1 << 20])
def test_ndjson_gives_the_same_events_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    whole = built(DATA / "uplinks.ndjson", UPLINKS)
    monkeypatch.setattr(ndjson_file, "BLOCK_BYTES", block)
    pieces = built(DATA / "uplinks.ndjson", UPLINKS)
    assert events(pieces) == events(whole)
    assert rejected(pieces) == rejected(whole)
    assert [sum(getattr(c, n) for c in pieces) for n in ("lines", "empty")] == [whole[0].lines, whole[0].empty]


def test_parquet_and_ndjson_of_the_same_records_give_the_same_events(tmp_path: Path) -> None:
    records = [
        {"id": f"s{i}", "at": 1_700_000_000_000 + i, "m": {"a.b": float(i), "c": {"d": i}, "on": True}, "n": i}
        for i in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "f.parquet", row_group_size=7)
    (tmp_path / "f.ndjson").write_text("\n".join(json.dumps(r) for r in records))
    request = ImportRequest(columns={"sensor_id": "id", "event_time": "at", "sequence": "n"}, melt=("m.*",))
    made = events(built(tmp_path / "f.parquet", request))
    assert made == events(built(tmp_path / "f.ndjson", request))
    assert {e["metric"] for e in made} == {"a.b", "c.d"}
    named = ImportRequest(columns={"sensor_id": "id", "event_time": "at"}, melt=("m.a.b", "m.c.d"))
    assert {e["metric"] for e in events(built(tmp_path / "f.parquet", named))} == {"a.b", "d"}
    assert {e["metric"] for e in events(built(tmp_path / "f.ndjson", named))} == {"a.b", "d"}


def test_parquet_columns_of_any_usual_type_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "sensor_id": pa.array(["a", "b", "a"]).dictionary_encode(),
            "metric": pa.array(["t", "t", None], pa.large_string()),
            "event_time": pa.array([1, 2, 3], pa.timestamp("us", "UTC")),
            "value": pa.array([1, None, 3], pa.decimal128(10, 2)),
            "sequence": pa.array([1, 2, 3], pa.uint64()),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    chunks = built(tmp_path / "f.parquet", ImportRequest())
    assert [(e["sensor_id"], e["event_time"], e["value"], e["sequence"]) for e in events(chunks)] == [("a", 0, 1.0, 1)]
    assert [(r.line, r.reason) for r in rejected(chunks)] == [(2, "value: missing"), (3, "metric: missing")]
    assert json.loads(rejected(chunks)[0].raw)["sensor_id"] == "b"


def test_lists_of_hashtags_stay_lists(tmp_path: Path) -> None:
    path = tmp_path / "f.ndjson"
    base = {"post_id": "1", "author_id": "a", "network": "n", "event_time": "2024-01-01T00:00:00Z", "text": ""}
    tags: list[object] = [["a", "ü"], [], None, "b", ["c", 5], [None], 7]
    path.write_text("\n".join(json.dumps({**base, "hashtags": t}) for t in tags))
    chunks = built(path, ImportRequest(), POST)
    assert [e["hashtags"] for e in events(chunks)] == [["a", "ü"], [], [], ["b"], ["c", "5"], ["7"]]
    assert [(r.line, r.reason) for r in rejected(chunks)] == [(6, "hashtags: null in a list")]


def test_a_field_that_only_later_lines_have_is_taken_from_there(tmp_path: Path) -> None:
    path = tmp_path / "f.ndjson"
    base = {"sensor_id": "a", "metric": "t", "value": 1, "event_time": 1}
    path.write_text("\n".join(json.dumps(base | ({"unit": "K"} if i == 1_500 else {})) for i in range(2_000)))
    made = events(built(path, ImportRequest()))
    assert [i for i, e in enumerate(made) if e["unit"] == "K"] == [1_500]


@pytest.mark.parametrize("suffix", [".ndjson", ".parquet"])
def test_columns_that_fill_a_field_are_no_measures(tmp_path: Path, suffix: str) -> None:
    path, records = tmp_path / f"f{suffix}", [{"id": "a", "at": 5, "n": 1, "x": 2.5, "deep": {"n": 3, "y": 4}}]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text(json.dumps(records[0]))
    request = ImportRequest(columns={"sensor_id": "id", "event_time": "at", "sequence": "deep.n"}, melt=("*",))
    made = {e["metric"]: e["value"] for e in events(built(path, request))}
    assert made == {"n": 1.0, "x": 2.5, "deep.y": 4.0}
