"""The oracle's way from a real partition and to a real table, without servers."""

import io
import struct
from dataclasses import replace
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer

from fluvial.oracle.from_cassandra import as_table, compare
from fluvial.oracle.from_kafka import ask_oracle, decode, parse
from fluvial.oracle.records import Record
from fluvial.schemas.declarations import Pipeline, Table, Tumbling

READING = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "sensor", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": "double"},
    ],
}
WITH_SITE = READING | {"fields": [*READING["fields"], {"name": "site", "type": "string", "default": "here"}]}
PIPELINE = Pipeline(
    source="readings",
    event="Reading",
    key=("sensor",),
    window=Tumbling(10),
    aggregates=("count", "sum"),
    table=Table("tens", ("sensor",)),
    event_time="at",
    lateness_ms=0,
    early_ms=3,
    value="value",
)


def framed(sensor: str, at: int, value: float) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse(READING), {"sensor": sensor, "at": at, "value": value})
    return struct.pack(">bI", 0, 7) + out.getvalue()


def schema_by_id(number: int) -> Any:
    return {7: parse(READING)}[number]


def decoded(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes], reader: Any = None) -> Record:
    return decode(offset=4, timestamp=9, key=key, value=value, headers=headers, schemas=schema_by_id, reader=reader)


def test_an_event_is_decoded_with_its_writers_schema_and_times_stay_milliseconds() -> None:
    assert decoded(b"a", framed("a", -5, 1.5)) == Record(4, 9, "event", b"a", {"sensor": "a", "at": -5, "value": 1.5})


def test_the_readers_defaults_are_filled_in() -> None:
    event = decoded(b"a", framed("a", 5, 1.5), reader=parse(WITH_SITE)).event
    assert event == {"sensor": "a", "at": 5, "value": 1.5, "site": "here"}


def test_ticks_are_null_values_with_a_number_in_their_header() -> None:
    assert decoded(None, None, ("fluvial-tick", b"-12")) == Record(4, 9, "tick", None, None, -12)
    assert decoded(b"a", None, ("fluvial-tick", b"12")) == Record(4, 9, "keyed_tick", b"a", None, 12)
    rekeyed = decoded(None, None, ("fluvial-upstream", b"3"), ("fluvial-tick", b"12"))
    assert rekeyed == Record(4, 9, "tick", None, None, 12, 3)


@pytest.mark.parametrize("number", [b"", b"1.5", b"1_0", b" 1", b"+1", "١".encode(), b"9223372036854775808"])
def test_a_tick_whose_header_is_no_number_is_bad(number: bytes) -> None:
    assert decoded(None, None, ("fluvial-tick", number)).kind == "bad"


def test_null_values_garbage_unknown_schemas_and_trailing_bytes_are_bad() -> None:
    good = framed("a", 5, 1.5)
    for value in (None, b"", b"\1" + good[1:], good[:-1], good + b"\0", b"\0\0\0\0\x08" + good[5:]):
        assert decoded(b"a", value).kind == "bad"


@pytest.fixture
def mock_broker() -> tuple[Producer, str]:
    """A producer and the address of librdkafka's own mock broker, which lives as long as the producer."""
    producer = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1})
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    return producer, f"{broker.host}:{broker.port}"


def test_a_partition_is_read_to_its_end_and_the_oracle_asked(mock_broker: tuple[Producer, str]) -> None:
    producer, address = mock_broker
    entries: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        (b"a", framed("a", 3, 1.5), []),
        (b"a", framed("a", 4, 2.0), []),
        (b"a", b"garbage", []),
        (b"a", None, [("fluvial-tick", b"10")]),
    ]
    for key, value, headers in entries:
        producer.produce("readings", value, key, partition=0, headers=headers, timestamp=1_000)
    producer.flush(10)
    results = ask_oracle(PIPELINE, address, schema_by_id)
    (row,) = results[0].rows
    assert (row["sensor"], row["window_start"], row["sum"], row["final"]) == ("a", 0, 3.5, True)
    assert row["source_offset"] == 3
    assert results[0].ledger.dead_lettered == 1
    assert all(result.rows == [] for partition, result in results.items() if partition)


def row(start: int, offset: int, total: float, final: bool = True) -> dict[str, Any]:
    window = {"sensor": "a", "window_start": start, "window_end": start + 10, "count": 1, "sum": total, "duplicates": 0}
    return window | {"final": final, "generation": 1, "source_partition": 0, "source_offset": offset}


def test_the_table_holds_of_every_window_the_row_with_the_greatest_timestamp() -> None:
    table = as_table(PIPELINE, [row(0, 5, 2.0), row(0, 3, 1.0, final=False), row(10, 9, 3.0)])
    assert [(held["sum"], held["writetime"]) for held in table.values()] == [(2.0, 1 << 44 | 5), (3.0, 1 << 44 | 9)]


def test_equal_rows_have_no_differences_and_every_differing_cell_has_a_line() -> None:
    wanted = [row(0, 5, 0.0), row(10, 9, 3.0), row(20, 9, 4.0)]
    stored = list(as_table(PIPELINE, wanted).values())
    assert compare(PIPELINE, wanted, stored) == []
    stored[0] = stored[0] | {"sum": -0.0, "writetime": 5}
    extra = row(90, 9, 4.0) | {"writetime": 9}
    assert compare(PIPELINE, wanted, [stored[0], stored[1], extra]) == [
        "missing: sensor='a' window_start=20",
        "not expected: sensor='a' window_start=90",
        "sensor='a' window_start=0: sum is -0.0, should be 0.0",
        f"sensor='a' window_start=0: writetime is 5, should be {1 << 44 | 5}",
    ]


def test_an_empty_list_is_stored_as_null_and_every_nan_is_equal() -> None:
    topped = replace(PIPELINE, aggregates=("count", "top"), top="sensor")
    wanted = [row(0, 5, float("nan")) | {"top": [], "top_counts": []}]
    stored = [next(iter(as_table(topped, wanted).values())) | {"top": None, "top_counts": None, "sum": -float("nan")}]
    assert compare(topped, wanted, stored) == []
