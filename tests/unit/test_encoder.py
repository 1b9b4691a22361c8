"""Encoding: fastavro reads what was written, byte for byte the same as it writes itself."""

import io
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.errors import SchemaError
from fluvial.records import Column, DoubleLists, Doubles, Longs, StringLists
from fluvial.schemas.avro import load_schema
from fluvial.schemas.columns import double_lists, doubles, longs, repeated, spans_from_strings, string_lists
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.sources import SchemaMap
from support.avro_schemas import Names, column_types, data_of, without_logical_types
from support.batches import framed, records_of

READING = load_schema("fluvial.iot.SensorReading")


def readings(n: int) -> dict[str, Column]:
    return {
        "sensor_id": spans_from_strings([f"sensor-{i}" for i in range(n)]),
        "site": repeated("", n),
        "metric": repeated("temperature", n),
        "event_time": longs(np.arange(n) + 1_700_000_000_000),
        "value": doubles(np.arange(n) / 4),
        "unit": spans_from_strings([None if i % 3 else "°C" for i in range(n)]),
        "sequence": longs(np.arange(n), np.arange(n) % 2 == 0),
    }


def test_rows_lie_one_after_another_in_confluents_format() -> None:
    values = Encoder(READING, 513).encode(readings(20_000))
    row = values.bytes_at(19_999)
    assert row is not None
    assert row[:5] == b"\x00\x00\x00\x02\x01"
    assert fastavro.schemaless_reader(io.BytesIO(row[5:]), READING, None)["sensor_id"] == "sensor-19999"
    assert (values.start[1:] == (values.start + values.length)[:-1]).all()
    assert int(values.length.sum()) == len(values.buffer)


@st.composite
def encodable(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    names = Names()
    fields = []
    for i in range(draw(st.integers(1, 6))):
        kind = without_logical_types(draw(column_types(names)))
        if isinstance(kind, dict) and kind["type"] == "array":
            kind["items"] = {"int": "double", "long": "double"}.get(kind["items"], kind["items"])
        elif draw(st.booleans()):
            kind = draw(st.permutations(["null", kind]))
        fields.append({"name": f"f{i}", "type": kind})
    schema = {"type": "record", "name": "Event", "fields": fields}
    return schema, draw(st.lists(data_of(schema), max_size=5))


@settings(max_examples=150, deadline=None)
@given(encodable())
def test_bytes_equal_fastavros_for_every_shape(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    schema, rows = case
    parsed = fastavro.parse_schema(schema)
    expected = []
    for row in rows:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, row)
        expected.append(framed(4, out.getvalue()))
    events = Decoder(schema, SchemaMap({4: schema})).decode(records_of(expected))
    values = Encoder(schema, 4).encode(events.columns)
    kept = [row for row in range(len(rows)) if events.ok[row]]
    if len(kept) == len(rows):
        assert [values.bytes_at(row) for row in kept] == expected


def refused(**changes: Column) -> str:
    with pytest.raises(SchemaError) as e:
        Encoder(READING, 1).encode({**readings(3), **changes})
    return str(e.value)


def test_what_does_not_fit_is_refused_by_field_and_row() -> None:
    assert "field site, row 1: null" in refused(site=spans_from_strings(["a", None, "b"]))
    assert "field value takes Doubles, not Longs" in refused(value=longs([1, 2, 3]))
    assert "unknown" in refused(other=longs([1, 2, 3]))
    assert "different lengths" in refused(value=doubles([1.0]))


def test_an_int_takes_no_long_and_an_enum_no_stranger() -> None:
    schema = {
        "type": "record",
        "name": "E",
        "fields": [
            {"name": "i", "type": "int"},
            {"name": "e", "type": ["null", {"type": "enum", "name": "C", "symbols": ["A", "BB"]}]},
        ],
    }
    encoder = Encoder(schema, 1)
    with pytest.raises(SchemaError, match="field i, row 0: 2147483648 is beyond an int"):
        encoder.encode({"i": longs([2**31]), "e": spans_from_strings(["A"])})
    with pytest.raises(SchemaError, match="field e, row 1: b'B' is no symbol of C"):
        encoder.encode({"i": longs([1, 2]), "e": spans_from_strings([None, "B"])})
    values = encoder.encode({"i": longs([1, -2]), "e": spans_from_strings([None, "BB"])})
    assert [values.bytes_at(i) for i in (0, 1)] == [framed(1, b"\x02\x00"), framed(1, b"\x03\x02\x02")]


def test_lists_are_written_as_one_block() -> None:
    schema = {
        "type": "record",
        "name": "E",
        "fields": [
            {"name": "t", "type": {"type": "array", "items": "string"}},
            {"name": "n", "type": {"type": "array", "items": "double"}},
        ],
    }
    columns = {"t": string_lists([["a", "bc"], []]), "n": double_lists([[], [1.0, 2.0]])}
    values = Encoder(schema, 1).encode(columns)
    assert values.bytes_at(0) == framed(1, b"\x04\x02a\x04bc\x00\x00")
    back = Decoder(schema, SchemaMap({1: schema})).decode(records_of([values.bytes_at(i) for i in (0, 1)]))
    numbers, texts = back.columns["n"], back.columns["t"]
    assert isinstance(numbers, DoubleLists)
    assert isinstance(texts, StringLists)
    assert (numbers.offsets.tolist(), numbers.items.tolist()) == ([0, 0, 2], [1.0, 2.0])
    assert texts.offsets.tolist() == [0, 2, 2]


def test_no_rows_encode_to_no_bytes() -> None:
    columns = readings(0)
    assert isinstance(columns["value"], Doubles)
    assert isinstance(columns["sequence"], Longs)
    assert len(Encoder(READING, 1).encode(columns)) == 0
