"""HTTP bodies: every form means the same events; bombs and rubbish are refused within bounds."""

import gzip
import io
import json
import tracemalloc
from typing import Any

import cbor2
import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.producers.gateway.bodies import PARSERS, parse, unpacked
from fluvial.producers.gateway.gate import RefusedError
from fluvial.producers.gateway.intake import Checked
from fluvial.producers.gateway.senml import readings
from fluvial.schemas.avro import load_schema
from support.gate import NOW_MS, intake, reading

READINGS = intake()
LIMIT = 1 << 20


def checked(body: bytes, content_type: str) -> Checked:
    _, check = parse(body, content_type)
    return check(READINGS, NOW_MS, "")


def avro(event: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    schema = fastavro.parse_schema(load_schema("fluvial.iot.SensorReading"))
    fastavro.schemaless_writer(out, schema, {"unit": None, "sequence": None, "site": "", **event})
    return out.getvalue()


def test_every_form_of_a_batch_means_the_same_events() -> None:
    events = [reading(sensor_id=f"s{i}", value=float(i)) for i in range(3)]
    cloud = [{"specversion": "1.0", "id": str(i), "source": "x", "type": "t", "data": e} for i, e in enumerate(events)]
    senml = [{"bt": NOW_MS / 1000, "n": f"s{i}:t", "v": float(i)} for i in range(3)]
    single = b"\xc3\x01" + READINGS.fingerprint
    frames = [b"\0\0\0\0\1" + avro(e) for e in events]
    bodies = {
        "application/json": json.dumps(events).encode(),
        "application/json; charset=utf-8": json.dumps({"events": events}).encode(),
        "application/x-ndjson": "\n".join(map(json.dumps, events)).encode() + b"\n\n",
        "application/cloudevents-batch+json": json.dumps(cloud).encode(),
        "application/senml+json": json.dumps(senml).encode(),
        "application/senml+cbor": cbor2.dumps([{-3: NOW_MS / 1000, 0: f"s{i}:t", 2: float(i)} for i in range(3)]),
        "application/avro": b"".join(len(f).to_bytes(4, "big") + f for f in frames),
        "application/vnd.apache.avro+binary": b"".join(
            (len(avro(e)) + 10).to_bytes(4, "big") + single + avro(e) for e in events
        ),
    }
    wanted = checked(bodies["application/json"], "application/json")
    assert wanted.accepted == 3
    for content_type, body in bodies.items():
        found = checked(body, content_type)
        assert found.rejected == (), content_type
        assert [found.values.bytes_at(i) for i in range(3)] == [wanted.values.bytes_at(i) for i in range(3)], (
            content_type
        )


def test_one_framed_event_and_one_single_object_may_come_alone() -> None:
    assert checked(b"\0\0\0\0\1" + avro(reading()), "application/avro").accepted == 1
    assert checked(b"\xc3\x01" + READINGS.fingerprint + avro(reading()), "application/avro").accepted == 1
    assert checked(b"\xc3\x01" + b"12345678" + avro(reading()), "application/avro").accepted == 0


def test_a_bad_line_fails_alone() -> None:
    lines = [json.dumps(reading()), "{", '{"value": NaN}', "[" * 100_000, json.dumps(reading())]
    found = checked("\n".join(lines).encode(), "application/x-ndjson")
    assert [r.index for r in found.rejected] == [1, 2, 3]
    assert found.accepted == 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"{", "application/json"), (b"1", "application/cloudevents+json"), (b"\xff", "application/senml+cbor"),
     (b"abc", "application/avro"), (b"{}", "text/plain"), (b"{}", "")],
)  # fmt: skip
def test_a_body_that_is_not_its_type_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(RefusedError) as e:
        parse(body, content_type)
    assert e.value.kind == "invalid"


def test_cloud_events_without_what_they_must_have_are_named() -> None:
    good = {"specversion": "1.0", "id": "1", "source": "x", "type": "t", "data": reading()}
    batch = [
        good,
        {**good, "id": ""},
        {**good, "specversion": "0.3"},
        {**good, "data_base64": "%"},
        {k: good[k] for k in list(good)[:4]},
    ]
    found = checked(json.dumps(batch).encode(), "application/cloudevents-batch+json")
    assert [r.reason for r in found.rejected] == [
        "a CloudEvent without id", "not a CloudEvent of version 1.x", "data_base64 is not base 64", "a CloudEvent without data",
    ]  # fmt: skip


def test_senml_is_resolved_as_rfc_8428_says() -> None:
    # The example of section 5.1.2, and one with base value, relative time and a boolean.
    pack = [
        {
            "bn": "urn:dev:ow:10e2073a0108006:",
            "bt": 1.276020076001e9,
            "bu": "A",
            "bver": 5,
            "n": "voltage",
            "u": "V",
            "v": 120.1,
        },
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "v": 1.7},
    ]
    assert readings(pack, NOW_MS) == [
        {
            "sensor_id": "urn:dev:ow:10e2073a0108006",
            "metric": "voltage",
            "event_time": 1276020076001,
            "value": 120.1,
            "unit": "V",
        },
        {
            "sensor_id": "urn:dev:ow:10e2073a0108006",
            "metric": "current",
            "event_time": 1276020071001,
            "value": 1.2,
            "unit": "A",
        },
        {
            "sensor_id": "urn:dev:ow:10e2073a0108006",
            "metric": "current",
            "event_time": 1276020076001,
            "value": 1.7,
            "unit": "A",
        },
    ]
    relative = readings([{"n": "door", "vb": True, "t": -10}, {"n": "x/y", "bv": 20, "v": 1}], NOW_MS)
    assert relative == [
        {"sensor_id": "door", "metric": "value", "event_time": NOW_MS - 10_000, "value": 1.0, "unit": None},
        {"sensor_id": "x", "metric": "y", "event_time": NOW_MS, "value": 21, "unit": None},
    ]


def test_senml_that_is_no_reading_is_named() -> None:
    pack = [{"n": "a", "vs": "text"}, {"v": 1}, {"n": "a", "v": "1"}, {"n": "a", "x_": 1, "v": 1}, 5, {"n": "a"}]
    reasons = [r.reason for r in readings(pack, NOW_MS)]
    assert reasons == [
        "SenML: not a number or a boolean", "SenML: no name", "SenML: a value, sum or time that is not a number",
        "SenML: field x_ must be understood and is not", "a SenML record is an object", "a SenML record without a value",
    ]  # fmt: skip


def test_packed_bodies_are_unpacked() -> None:
    data = b"x" * 1000
    assert unpacked(gzip.compress(data[:500]) + gzip.compress(data[500:]), "gzip", LIMIT) == data
    assert unpacked(pa.Codec("zstd").compress(data, asbytes=True), "zstd", LIMIT) == data
    assert unpacked(data, "identity", LIMIT) == data


def test_a_bomb_is_stopped_at_the_limit() -> None:
    bombs = {
        "gzip": gzip.compress(bytes(200 << 20), 9),
        "zstd": pa.Codec("zstd").compress(bytes(200 << 20), asbytes=True),
    }
    for encoding, bomb in bombs.items():
        assert len(bomb) < 250_000
        tracemalloc.start()
        with pytest.raises(RefusedError) as e:
            unpacked(bomb, encoding, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert e.value.kind == "too-large"
        assert peak < 16 << 20


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
def test_a_damaged_body_is_refused(encoding: str) -> None:
    with pytest.raises(RefusedError) as e:
        unpacked(b"\x1f\x8b\x08not really", encoding, LIMIT)
    assert e.value.kind == "invalid"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=200))
def test_any_bytes_are_refused_or_judged(content_type: str, body: bytes) -> None:
    try:
        events, check = parse(body, content_type)
        found = check(READINGS, NOW_MS, "")
    except RefusedError:
        return
    assert found.accepted + len(found.rejected) >= 0
    assert events >= 0


names = st.text(max_size=5) | st.sampled_from(["n", "v", "bn", "t", "data", "id"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([t for t in sorted(PARSERS) if "json" in t]), json_values)
def test_any_json_is_refused_or_judged(content_type: str, value: Any) -> None:
    try:
        _, check = parse(json.dumps(value).encode(), content_type)
        check(READINGS, NOW_MS, "")
    except RefusedError:
        pass
