"""Every format says the same."""

import csv
import io
import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from fluvial.arrow_cells import UTC_MS, arrow_array, arrow_type
from fluvial.tabular import Format, aligned, for_reading, write

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TABLE = pa.table(
    {
        "sensor_id": pa.array(["a", 'ä,"b"']),
        "window_start": pa.array([NOON, NOON.replace(microsecond=5000)], UTC_MS),
        "day": pa.array([date(2026, 3, 1)] * 2, pa.date32()),
        "count": pa.array([60, 7], pa.int64()),
        "mean": pa.array([21.123456789, float("nan")]),
        "final": pa.array([True, False]),
        "top": pa.array([["x", "y"], []], pa.list_(pa.string())),
        "unit": pa.array([None, "°C"]),
    }
)


def written(fmt: Format) -> bytes:
    out = io.BytesIO()
    write(TABLE, fmt, out)
    return out.getvalue()


def test_json_lines_are_rfc_3339_and_have_no_nan() -> None:
    rows = [json.loads(line) for line in written("json").decode().splitlines()]
    assert rows[0] == {
        "sensor_id": "a",
        "window_start": "2026-03-01T12:00:00.000Z",
        "day": "2026-03-01",
        "count": 60,
        "mean": 21.123456789,
        "final": True,
        "top": ["x", "y"],
        "unit": None,
    }
    assert rows[1]["window_start"] == "2026-03-01T12:00:00.005Z"
    assert rows[1]["mean"] is None


def test_csv_can_be_read_back() -> None:
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(written("csv").decode())))
    assert [r["sensor_id"] for r in rows] == ["a", 'ä,"b"']
    assert rows[0]["window_start"] == "2026-03-01T12:00:00.000Z"
    assert float(rows[0]["mean"]) == 21.123456789
    assert json.loads(rows[0]["top"]) == ["x", "y"]


def test_parquet_and_arrow_keep_the_types() -> None:
    parquet = pyarrow.parquet.read_table(io.BytesIO(written("parquet")))
    arrow = pyarrow.ipc.open_stream(written("arrow")).read_all()
    for found in (parquet, arrow):
        assert found.column("window_start").type == UTC_MS
        assert found.column("day").type == pa.date32()
        assert found.column("top").to_pylist() == [["x", "y"], []]


def test_text_is_aligned_with_numbers_to_the_right() -> None:
    lines = aligned(TABLE.select(["window_start", "count", "mean", "final", "top"])).splitlines()
    assert lines == [
        "window_start              count     mean  final  top",
        "2026-03-01T12:00:00Z         60  21.1235  yes    x, y",
        "2026-03-01T12:00:00.005Z      7      nan  no",
    ]


def test_an_empty_table_has_its_header() -> None:
    assert aligned(TABLE.slice(0, 0).select(["count", "mean"])) == "count  mean\n"


def test_a_person_is_shown_neither_the_key_nor_the_provenance() -> None:
    assert for_reading(TABLE, ["sensor_id"]).column_names == ["window_start", "count", "mean", "final", "top", "unit"]


def test_the_drivers_values_become_arrow() -> None:
    class Date:
        def date(self) -> date:
            return date(2026, 3, 1)

    assert arrow_array([Date(), None], "date").to_pylist() == [date(2026, 3, 1), None]
    naive = arrow_array([NOON.replace(tzinfo=None), None], "timestamp")
    assert (naive.type, naive[0].as_py()) == (UTC_MS, NOON)
    assert arrow_array([["a"], None], "frozen<list<text>>").to_pylist() == [["a"], None]
    assert arrow_type("frozen<list<double>>") == pa.list_(pa.float64())
    assert arrow_array([1], "varint").to_pylist() == ["1"]


def test_text_shows_the_head_of_a_long_list_and_how_many_more() -> None:
    table = pa.table({"top": [["a", "b", "c", "d", "e", "f", "g"], ["a"]]})
    assert aligned(table).splitlines() == ["top", "a, b, c, d, e … 2 more", "a"]
