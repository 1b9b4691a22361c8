"""Damaged data are read as far as they go, and cost nothing."""

import io
import time

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from fluvial.schemas.avro import load_schema
from fluvial.schemas.partial import read_partial

READING = load_schema("fluvial.iot.SensorReading")
EVERYTHING = {
    "type": "record",
    "name": "E",
    "fields": [
        {"name": "n", "type": "null"},
        {"name": "b", "type": "boolean"},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "bytes", "type": "bytes"},
        {"name": "e", "type": {"type": "enum", "name": "C", "symbols": ["x", "y"]}},
        {"name": "again", "type": "C"},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 2}},
        {"name": "list", "type": {"type": "array", "items": "string"}},
        {"name": "map", "type": {"type": "map", "values": "long"}},
        {"name": "inner", "type": {"type": "record", "name": "I", "fields": [{"name": "u", "type": ["null", "int"]}]}},
    ],
}
RECURSIVE = {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}


def written(schema: dict, datum: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, datum)
    return out.getvalue()


def test_a_whole_datum_is_read_to_its_end() -> None:
    datum = {
        "n": None, "b": True, "f": 0.5, "d": -1.5, "bytes": b"\xff", "e": "y", "again": "x", "fixed": b"ab",
        "list": ["a", "ä"], "map": {"k": -3}, "inner": {"u": 5},
    }  # fmt: skip
    found = read_partial(written(EVERYTHING, datum), EVERYTHING)
    assert found.stopped is None
    assert found.fields == datum | {"bytes": "ff", "fixed": "6162"}


def test_a_cut_datum_is_read_up_to_the_cut() -> None:
    datum = {"sensor_id": "s", "metric": "m", "site": "", "event_time": 5, "value": 1.0, "unit": None, "sequence": 7}
    whole = written(READING, datum)
    found = read_partial(whole[:-4], READING)
    assert list(found.fields) == ["sensor_id", "site", "metric", "event_time"]
    assert found.stopped is not None
    assert found.stopped.startswith("field value, byte ")
    assert read_partial(whole + b"x", READING).stopped == "1 more bytes after the last field"


def test_what_grows_without_bounds_is_stopped() -> None:
    begun = time.monotonic()
    deep = read_partial(b"\x02" * 100_000, RECURSIVE)
    assert "too deep or too much to be shown" in (deep.stopped or "")
    many = {"type": "record", "name": "M", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}
    assert "too many to be shown" in (read_partial(b"\xfe\xff\xff\xff\x0f", many).stopped or "")
    assert time.monotonic() - begun < 1


@given(st.binary(max_size=60))
def test_any_bytes_give_an_answer(datum: bytes) -> None:
    for schema in (
        READING,
        EVERYTHING,
        RECURSIVE,
        "string",
        {"type": "record", "name": "X", "fields": [{"name": "y"}]},
    ):
        read_partial(datum, schema)
