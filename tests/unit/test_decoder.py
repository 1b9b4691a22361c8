"""Decoding: frames, several writers in one batch, bad rows, bombs, shapes that fastavro reads."""

import io
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pytest

from fluvial.errors import FluvialError, SchemaError
from fluvial.schemas.avro import load_schema
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.sources import SchemaMap
from support.batches import framed, records_of, value_at

READING = load_schema("fluvial.iot.SensorReading")
POST = load_schema("fluvial.social.SocialPost")


def datum(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "E", "fields": list(fields)}


def reading(**changes: Any) -> dict[str, Any]:
    return {"sensor_id": "s1", "site": "", "metric": "t", "event_time": 1_700_000_000_000, "value": 1.5} | changes


def skipping(kind: Any) -> Decoder:
    """A decoder that has to skip a field of this type."""
    writer = record({"name": "x", "type": kind})
    return Decoder(record({"name": "a", "type": "long", "default": 0}), SchemaMap({1: writer}))


def errors_of(decoder: Decoder, *values: bytes | None) -> list[tuple[int, str]]:
    return [(e.row, e.error_type) for e in decoder.decode(records_of(values)).errors]


def test_readings_become_columns() -> None:
    decoder = Decoder(READING, SchemaMap({7: READING}))
    events = decoder.decode(
        records_of(
            [framed(7, datum(READING, reading(unit="°C", sequence=4))), framed(7, datum(READING, reading(value=-0.25)))]
        )
    )
    assert events.ok.tolist() == [True, True]
    got = {name: [value_at(column, row) for row in (0, 1)] for name, column in events.columns.items()}
    assert got == {
        "sensor_id": [b"s1", b"s1"],
        "site": [b"", b""],
        "metric": [b"t", b"t"],
        "event_time": [1_700_000_000_000, 1_700_000_000_000],
        "value": [1.5, -0.25],
        "unit": ["°C".encode(), None],
        "sequence": [4, None],
    }


def test_lists_grow_beyond_the_first_allocation() -> None:
    posts = [
        {"post_id": str(i), "author_id": "a", "network": "n", "event_time": i, "text": "", "hashtags": ["x"] * (i % 90)}
        for i in range(200)
    ]
    events = Decoder(POST, SchemaMap({1: POST})).decode(records_of([framed(1, datum(POST, p)) for p in posts]))
    assert [len(value_at(events.columns["hashtags"], i)) for i in range(200)] == [i % 90 for i in range(200)]


def test_null_values_are_neither_events_nor_errors() -> None:
    events = Decoder(READING, SchemaMap({7: READING})).decode(records_of([None, framed(7, datum(READING, reading()))]))
    assert (events.ok.tolist(), events.errors) == ([False, True], ())


def test_no_records_decode_to_empty_columns() -> None:
    events = Decoder(POST, SchemaMap({})).decode(records_of([]))
    assert {name: len(column) for name, column in events.columns.items()} == dict.fromkeys(events.columns, 0)


def test_writers_are_mixed_row_by_row() -> None:
    old = record({"name": "id", "type": "string"}, {"name": "n", "type": "int"})
    new = record({"name": "n", "type": "double"}, {"name": "id", "type": "string"}, {"name": "more", "type": "string"})
    reader = record(
        {"name": "id", "type": "string"},
        {"name": "n", "type": "double"},
        {"name": "more", "type": "string", "default": "none"},
    )
    values = [
        framed(1, datum(old, {"id": "a", "n": 3})),
        framed(2, datum(new, {"id": "b", "n": 2.5, "more": "x"})),
        framed(9, b""),
        framed(1, datum(old, {"id": "c", "n": -1})),
    ]
    events = Decoder(reader, SchemaMap({1: old, 2: new})).decode(records_of(values))
    rows = [[value_at(events.columns[f], row) for f in ("id", "n", "more")] for row in (0, 1, 3)]
    assert rows == [[b"a", 3.0, b"none"], [b"b", 2.5, b"x"], [b"c", -1.0, b"none"]]
    assert [(e.row, e.stage, e.error_type) for e in events.errors] == [(2, "decode", "UnknownSchema")]
    assert "unknown schema id 9" in events.errors[0].message


def test_each_bad_row_names_its_field_and_leaves_the_others() -> None:
    good = datum(READING, reading())
    decoder = Decoder(READING, SchemaMap({7: READING}))
    values = [
        framed(7, good),
        b"\x01\x00\x00\x00\x07" + good,
        b"\x00\x00",
        b"",
        framed(7, good[:-5]),
        framed(7, good + b"\x00"),
        framed(7, b"\x03" + good[1:]),
        framed(7, good[:-2] + b"\x06\x00"),
        framed(7, good.replace(b"s1", b"\xff1")),
        framed(7, b"\xff" * 11),
        framed(7, good),
    ]
    events = decoder.decode(records_of(values))
    assert [(e.row, e.error_type) for e in events.errors] == [
        (1, "BadMagic"),
        (2, "NotFramed"),
        (3, "NotFramed"),
        (4, "Truncated"),
        (5, "TrailingBytes"),
        (6, "BadLength"),
        (7, "BadUnionIndex"),
        (8, "InvalidUtf8"),
        (9, "VarintTooLong"),
    ]
    assert events.errors[7].message == "field sensor_id: a string that is not UTF-8"
    assert np.flatnonzero(events.ok).tolist() == [0, 10]
    assert value_at(events.columns["sensor_id"], 4) == b""
    assert not events.columns["value"].valid[4]  # type: ignore[union-attr]


def test_a_null_of_the_writer_is_an_error_only_where_the_reader_takes_none() -> None:
    writer = record({"name": "v", "type": ["null", "double"]})
    reader = record({"name": "v", "type": "double"})
    decoder = Decoder(reader, SchemaMap({1: writer}))
    values = [framed(1, datum(writer, {"v": None})), framed(1, datum(writer, {"v": 1.0}))]
    assert errors_of(decoder, *values) == [(0, "NullValue")]


def test_an_unknown_symbol_takes_the_readers_default_or_is_an_error() -> None:
    writer = record({"name": "c", "type": {"type": "enum", "name": "C", "symbols": ["RED", "PINK"]}})
    plain = record({"name": "c", "type": {"type": "enum", "name": "C", "symbols": ["GREY", "RED"]}})
    lenient = record(
        {"name": "c", "type": {"type": "enum", "name": "C", "symbols": ["GREY", "RED"], "default": "GREY"}}
    )
    values = [framed(1, datum(writer, {"c": c})) for c in ("RED", "PINK")]
    assert errors_of(Decoder(plain, SchemaMap({1: writer})), *values) == [(1, "UnknownSymbol")]
    events = Decoder(lenient, SchemaMap({1: writer})).decode(records_of(values))
    assert [value_at(events.columns["c"], i) for i in (0, 1)] == [b"RED", b"GREY"]


def test_a_missing_field_without_default_refuses_the_writers_rows() -> None:
    writer = record({"name": "a", "type": "long"})
    reader = record({"name": "a", "type": "long"}, {"name": "b", "type": "long"})
    events = Decoder(reader, SchemaMap({1: writer})).decode(records_of([framed(1, b"\x02")]))
    assert "field b is not in the writer's schema and has no default" in events.errors[0].message


def test_the_record_may_be_a_branch_of_a_union() -> None:
    other = {"type": "record", "name": "Other", "fields": [{"name": "x", "type": "long"}]}
    mine = record({"name": "a", "type": "long"})
    decoder = Decoder(mine, SchemaMap({1: [other, mine]}))
    assert errors_of(decoder, framed(1, b"\x02\x08"), framed(1, b"\x00\x08")) == [(1, "SchemaMismatch")]


BILLION = b"\x80\xa8\xd6\xb9\x07"
BOMBS = {
    "a billion items": ({"type": "array", "items": "string"}, BILLION, "TooManyItems"),
    "a billion in a sized block": (
        {"type": "array", "items": "long"},
        b"\xff\xa7\xd6\xb9\x07\x02\x00",
        "TooManyItems",
    ),
    "the least count": ({"type": "array", "items": "long"}, b"\xff" * 9 + b"\x01\x02\x00", "TooManyItems"),
    "a gigabyte of text": ("string", b"\x80\x80\x80\x80\x08", "Truncated"),
    "maps of maps": (
        {"type": "map", "values": {"type": "map", "values": "long"}},
        b"\x80\xa8\xd6\xb9\x07",
        "TooManyItems",
    ),
}


@pytest.mark.parametrize("reader", [{"type": "array", "items": "double"}, "long"])
def test_blocks_may_state_their_size_and_must_not_lie_about_it(reader: Any) -> None:
    writer = record({"name": "x", "type": {"type": "array", "items": "long"}})
    listed = isinstance(reader, dict)
    field = {"name": "x", "type": reader} if listed else {"name": "a", "type": "long", "default": 0}
    values = [framed(1, b"\x03" + size + b"\x02\x04\x01\x02\x06\x00") for size in (b"\x04", b"\x02", b"\x06", b"\x7e")]
    events = Decoder(record(field), SchemaMap({1: writer})).decode(records_of(values))
    assert [(e.row, e.error_type) for e in events.errors] == [(row, "BadBlockSize") for row in (1, 2, 3)]
    assert not listed or value_at(events.columns["x"], 0) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_memory_is_taken(name: str) -> None:
    kind, payload, error = BOMBS[name]
    decoder = skipping(kind)
    assert errors_of(decoder, framed(1, payload)) == [(0, error)]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"type": "array", "items": "null"}, "no bytes"),
        ({"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}}, "no bytes"),
        ({"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}, "recursive"),
    ],
)
def test_schemas_that_make_bombs_are_refused(kind: Any, reason: str) -> None:
    decoder = Decoder(
        record({"name": "a", "type": "long", "default": 0}), SchemaMap({1: record({"name": "x", "type": kind})})
    )
    assert reason in decoder.decode(records_of([framed(1, b"\x00")])).errors[0].message


def test_a_schema_nested_a_thousand_deep_is_refused() -> None:
    kind: Any = "long"
    for _ in range(1000):
        kind = {"type": "array", "items": kind}
    decoder = Decoder(
        record({"name": "a", "type": "long", "default": 0}), SchemaMap({1: record({"name": "x", "type": kind})})
    )
    assert "nested too deeply" in decoder.decode(records_of([framed(1, b"\x00")])).errors[0].message


def test_a_schema_that_doubles_at_every_level_is_refused() -> None:
    kind: Any = "long"
    for i in range(25):
        fields = [{"name": "l", "type": kind}, {"name": "r", "type": f"R{i - 1}" if i else "long"}]
        kind = {"type": "record", "name": f"R{i}", "fields": fields}
    decoder = Decoder(
        record({"name": "a", "type": "long", "default": 0}), SchemaMap({1: record({"name": "x", "type": kind})})
    )
    assert "too large" in decoder.decode(records_of([framed(1, b"\x00")])).errors[0].message


def test_decimals_number_unions_and_nullable_lists_are_read_by_fastavro() -> None:
    schema = record(
        {"name": "id", "type": "string"},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "level", "type": ["null", "long", "double"]},
        {"name": "tags", "type": ["null", {"type": "array", "items": "string"}]},
    )
    good = [
        {"id": "a", "price": Decimal("12.25"), "level": 3, "tags": ["x", "y"]},
        {"id": "b", "price": None, "level": 0.5, "tags": None},
        {"id": "c", "price": Decimal("-0.01"), "level": None, "tags": []},
    ]
    values: list[bytes | None] = [framed(1, datum(schema, g)) for g in good]
    values[1:1] = [None, framed(1, b"\x02"), framed(8, b""), b"\x07"]
    events = Decoder(schema, SchemaMap({1: schema})).decode(records_of(values))
    rows = [[value_at(events.columns[f], row) for f in ("id", "price", "level", "tags")] for row in (0, 5, 6)]
    assert rows == [[b"a", 12.25, 3.0, [b"x", b"y"]], [b"b", None, 0.5, []], [b"c", -0.01, None, []]]
    assert [(e.row, e.error_type) for e in events.errors] == [(2, "Truncated"), (3, "UnknownSchema"), (4, "NotFramed")]
    assert events.ok.tolist() == [True, False, False, False, False, True, True]


def test_shapes_without_columns_are_refused_when_the_decoder_is_made() -> None:
    for kind in ({"type": "map", "values": "long"}, ["null", "string", "long"], {"type": "array", "items": "long"}):
        with pytest.raises(SchemaError, match="has no columnar form"):
            Decoder(record({"name": "x", "type": kind}), SchemaMap({}))


def test_a_registry_that_is_away_is_no_bad_row() -> None:
    class Away:
        def by_id(self, schema_id: int) -> Any:
            raise FluvialError("the registry does not answer")

    with pytest.raises(FluvialError, match="does not answer"):
        Decoder(READING, Away()).decode(records_of([framed(1, b"\x00")]))


def test_one_decoder_serves_many_threads() -> None:
    schemas = {i: record({"name": "a", "type": "long"}, {"name": f"b{i}", "type": "string"}) for i in range(40)}
    decoder = Decoder(record({"name": "a", "type": "long"}), SchemaMap(schemas))

    def decode(first: int) -> list[Any]:
        ids = [(first + i) % 40 for i in range(40)]
        events = decoder.decode(records_of([framed(i, datum(schemas[i], {"a": i, f"b{i}": "x"})) for i in ids]))
        assert events.ok.all()
        return [value_at(events.columns["a"], row) == i for row, i in enumerate(ids)]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(same) for same in pool.map(decode, range(40)))
