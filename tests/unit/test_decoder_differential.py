"""The native decoder against fastavro: random schemas, resolutions, data, and damaged bytes."""

import io
import struct
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial.schemas.decoder import Decoder
from fluvial.schemas.sources import SchemaMap
from support.avro_schemas import data_of, schema_pairs, without_logical_types
from support.batches import framed, records_of, value_at

# Where the native decoder is the stricter one: fastavro takes indices from the end, overlong varints, and (when it
# reads and does not skip) blocks of false sizes.
STRICTER = {"BadBlockSize", "BadEnum", "BadUnionIndex", "VarintTooLong", "TooManyItems", "BadLength"}


def reference(datum: bytes, writer: Any, reader: Any) -> dict[str, Any] | str:
    """What fastavro reads, or why it refuses."""
    stream = io.BytesIO(datum)
    try:
        # Skipping, fastavro does not notice that bytes are missing; reading everything it does.
        fastavro.schemaless_reader(io.BytesIO(datum), writer, None, handle_unicode_errors="replace")
        event = fastavro.schemaless_reader(stream, writer, reader)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return event if stream.tell() == len(datum) else "bytes left over"


def plain(value: Any, kind: Any) -> Any:
    """A value of fastavro's as `value_at` gives it: strings as bytes, doubles as their bits."""
    if isinstance(kind, list):
        kind = next(k for k in kind if k != "null")
    if value is None:
        return None
    if isinstance(kind, dict) and kind["type"] == "array":
        return [plain(v, kind["items"]) for v in value]
    if isinstance(value, str):
        return value.encode(
            "latin-1" if kind == "bytes" or (isinstance(kind, dict) and kind["type"] == "fixed") else "utf-8"
        )
    if kind in ("double", "float"):
        return struct.pack("<d", value)
    return int(value) if isinstance(value, bool) else value


def bits(value: Any) -> Any:
    if isinstance(value, list):
        return [bits(v) for v in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


def check(writer: Any, reader: Any, data: list[bytes]) -> None:
    decoder = Decoder(reader, SchemaMap({3: writer}))
    events = decoder.decode(records_of([framed(3, d) for d in data]))
    errors = {e.row: e for e in events.errors}
    plain_writer = fastavro.parse_schema(without_logical_types(writer))
    plain_reader = fastavro.parse_schema(without_logical_types(reader))
    for row, datum in enumerate(data):
        assert events.ok[row] == (row not in errors)
        if row in errors and errors[row].error_type in STRICTER:
            continue
        expected = reference(datum, plain_writer, plain_reader)
        if isinstance(expected, str):
            assert row in errors, f"fastavro refused it: {expected}"
            continue
        assert row not in errors, errors[row]
        for f in plain_reader["fields"]:
            got = value_at(events.columns[f["name"]], row)
            assert bits(got) == plain(expected[f["name"]], f["type"]), f["name"]


def encoded(writer: Any, data: list[Any]) -> list[bytes]:
    parsed = fastavro.parse_schema(without_logical_types(writer))
    parts = []
    for datum in data:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, datum)
        parts.append(out.getvalue())
    return parts


SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(st.data())
def test_every_resolution_equals_fastavros(data: st.DataObject) -> None:
    writer, reader = data.draw(schema_pairs())
    rows = data.draw(st.lists(data_of(without_logical_types(writer)), min_size=1, max_size=5))
    check(writer, reader, encoded(writer, rows))


@SETTINGS
@given(st.data())
def test_what_fastavro_reads_row_by_row_equals_what_the_loop_reads(data: st.DataObject) -> None:
    writer, reader = data.draw(schema_pairs())
    rows = encoded(writer, data.draw(st.lists(data_of(without_logical_types(writer)), min_size=1, max_size=5)))
    cut = [row[: data.draw(st.integers(0, len(row)))] for row in rows]
    records = records_of([framed(3, row) for row in rows + cut])
    native = Decoder(reader, SchemaMap({3: writer})).decode(records)
    # A union of numbers is nothing that the loop reads, so this reader's rows all go to fastavro.
    number = {"name": "number", "type": ["null", "long", "double"], "default": None}
    other = Decoder({**reader, "fields": [*reader["fields"], number]}, SchemaMap({3: writer})).decode(records)
    assert native.ok.tolist() == other.ok.tolist()
    for name, column in native.columns.items():
        for row in range(len(records)):
            if native.ok[row]:
                assert bits(value_at(column, row)) == bits(value_at(other.columns[name], row)), name


@SETTINGS
@given(st.data())
def test_damaged_bytes_are_refused_or_read_alike(data: st.DataObject) -> None:
    writer, reader = data.draw(schema_pairs())
    rows = encoded(writer, data.draw(st.lists(data_of(without_logical_types(writer)), min_size=1, max_size=3)))
    damaged = []
    for datum in rows:
        bytes_ = bytearray(datum)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, max(len(bytes_) - 1, 0)))
            match data.draw(st.sampled_from(["flip", "cut", "insert"])):
                case "flip" if bytes_:
                    bytes_[at] = data.draw(st.integers(0, 255))
                case "cut":
                    del bytes_[at:]
                case _:
                    bytes_.insert(at, data.draw(st.integers(0, 255)))
        damaged.append(bytes(bytes_))
    check(writer, reader, [d for pair in zip(rows, damaged, strict=True) for d in pair])


@pytest.mark.parametrize("text", ["", "a", "é", "漢", "😀", "\U0010ffff", "\ud7ff", "\ue000"])
def test_utf8_of_every_width_is_read(text: str) -> None:
    schema = {"type": "record", "name": "E", "fields": [{"name": "s", "type": "string"}]}
    check(schema, schema, encoded(schema, [{"s": text}, {"s": "x" + text + "y"}]))
