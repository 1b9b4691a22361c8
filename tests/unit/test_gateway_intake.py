"""A gateway's checks: what is good goes on as it was meant, what is bad says why, and neither depends on its neighbours."""

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.producers.fields import Field
from fluvial.producers.gateway.intake import SAMPLES, Checked, framed
from fluvial.producers.gateway.json_cells import column_from_json
from fluvial.producers.rejections import Faults
from fluvial.records import Doubles, Spans
from fluvial.schemas.avro import load_schema
from fluvial.schemas.columns import spans_from_strings
from support.gate import NOW_MS, POSTS, intake, reading

SCHEMA = fastavro.parse_schema(load_schema("fluvial.iot.SensorReading"))
READINGS = intake()
TIMES = ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00")

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)
values = st.fixed_dictionaries(
    {},
    optional={
        "sensor_id": st.one_of(st.text(max_size=3), scalars), "site": scalars, "metric": st.one_of(st.just("t"), scalars),
        "event_time": st.one_of(st.integers(0, NOW_MS), st.sampled_from(TIMES), scalars), "unit": scalars, "x": scalars,
        "value": st.one_of(st.floats(-10, 10), scalars), "sequence": st.one_of(st.integers(0, 9), scalars),
    },
)  # fmt: skip


def decoded(checked: Checked) -> list[dict[str, Any]]:
    out = []
    for i in range(checked.accepted):
        value = checked.values.bytes_at(i)
        assert value is not None
        assert value[:5] == b"\0\0\0\0\1"
        event = fastavro.schemaless_reader(io.BytesIO(value[5:]), SCHEMA, None)
        assert isinstance(event, dict)
        event["event_time"] = round(event["event_time"].timestamp() * 1000)
        out.append(event)
    return out


def test_a_good_reading_is_what_it_says() -> None:
    checked = READINGS.from_objects(
        [reading(unit="C", sequence=7), reading(event_time="2026-03-01T12:00:00.250+01:00")], NOW_MS
    )
    assert checked.rejected == ()
    first, second = decoded(checked)
    assert first == {
        "sensor_id": "s1", "site": "", "metric": "t", "event_time": NOW_MS, "value": 21.5, "unit": "C", "sequence": 7,
    }  # fmt: skip
    assert second["event_time"] == 1772362800250
    assert checked.keys.bytes_at(0) == b"s1"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sensor_id": None}, "sensor_id: missing"),
        ({"sensor_id": ""}, "sensor_id: empty"),
        ({"sensor_id": 5}, "sensor_id: not a text"),
        ({"metric": ""}, "metric: empty"),
        ({"value": None}, "value: missing"),
        ({"value": "21.5"}, "value: not a number"),
        ({"value": True}, "value: not a number"),
        ({"value": float("inf")}, "value: not a finite number"),
        ({"value": 10**400}, "value: not a number"),
        ({"event_time": None}, "event_time: missing"),
        ({"event_time": "2026-03-01T12:00:00"}, "event_time: a time without a zone"),
        ({"event_time": "yesterday"}, "event_time: not an ISO 8601 time or an epoch number"),
        ({"event_time": NOW_MS + 300_001}, "event_time: more than 300 s ahead of the gateway's clock"),
        ({"sequence": 1.5}, "sequence: not a whole number of 64 bits"),
        ({"sequence": 2**63}, "sequence: not a whole number of 64 bits"),
        ({"colour": "red"}, "unknown field colour"),
    ],
)
def test_what_is_wrong_is_said(changed: dict[str, Any], reason: str) -> None:
    checked = READINGS.from_objects([reading(), reading(**changed), reading()], NOW_MS)
    assert [(r.index, r.reason) for r in checked.rejected] == [(1, reason)]
    assert checked.accepted == 2


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(values, scalars), max_size=6))
def test_each_event_is_judged_by_itself(objects: list[Any]) -> None:
    together = READINGS.from_objects(objects, NOW_MS)
    bad = {r.index for r in together.rejected}
    alone = [READINGS.from_objects([o], NOW_MS) for o in objects]
    assert [i in bad for i in range(len(objects))] == [c.accepted == 0 for c in alone]
    assert decoded(together) == [e for c in alone for e in decoded(c)]


def test_avro_goes_through_unchanged_and_bad_ones_are_named() -> None:
    def avro(event: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, SCHEMA, {"unit": None, "sequence": None, "site": "", **event})
        return out.getvalue()

    good = avro(reading())
    batch = [good, good[:-2], b"", avro(reading(value=float("nan"))), good]
    checked = READINGS.from_framed(framed(1, batch), NOW_MS)
    assert [r.index for r in checked.rejected] == [1, 2, 3]
    assert checked.values.bytes_at(0) == checked.values.bytes_at(1) == b"\0\0\0\0\1" + good
    assert [checked.keys.bytes_at(i) for i in range(2)] == [b"s1", b"s1"]
    assert READINGS.from_framed(framed(9, [good]), NOW_MS).rejected[0].reason.startswith("UnknownSchema")
    assert READINGS.from_framed(spans_from_strings([b"\1junk"]), NOW_MS).accepted == 0


def test_a_key_with_a_prefix_publishes_its_own_sensors_only() -> None:
    checked = READINGS.from_objects(
        [reading(sensor_id="p7/a"), reading(sensor_id="p8/a"), reading(sensor_id="p")], NOW_MS, prefix="p7/"
    )
    assert [r.index for r in checked.rejected] == [1, 2]
    assert checked.keys.bytes_at(0) == b"p7/a"


def test_an_event_larger_than_a_record_batch_is_refused() -> None:
    checked = READINGS.from_objects([reading(), reading(unit="x" * 1_000_000)], NOW_MS)
    assert [(r.index, r.kind) for r in checked.rejected] == [(1, "too-large")]


def test_posts_have_lists_of_texts() -> None:
    post = {"post_id": "1", "author_id": "a", "network": "n", "event_time": NOW_MS, "text": "hi #x", "hashtags": ["x"]}
    checked = intake(POSTS).from_objects(
        [post, {**post, "hashtags": ["x", 1]}, {**post, "hashtags": "x"}, {**post, "hashtags": None}], NOW_MS
    )
    assert [(r.index, r.reason) for r in checked.rejected] == [
        (1, "hashtags: not a list of texts"), (2, "hashtags: not a list of texts"),
    ]  # fmt: skip
    assert checked.accepted == 2


def test_numbers_of_one_column_may_be_whole_and_not() -> None:
    faults = Faults(3)
    column = column_from_json([1, 2.5, 2**60 + 1], Field("value", "number"), faults)
    assert isinstance(column, Doubles)
    assert column.values.tolist() == [1.0, 2.5, float(2**60 + 1)]
    assert faults.good.all()
    texts = column_from_json(["a", "\ud800", "b"], Field("t", "text"), Faults(3))
    assert isinstance(texts, Spans)


def test_true_is_no_number_among_numbers() -> None:
    faults = Faults(4)
    column_from_json([1.5, True, 2, [True]], Field("value", "number"), faults)
    assert faults.bad_rows().tolist() == [1, 3]
    faults = Faults(2)
    column_from_json([[1.5, True], [2.0]], Field("numbers", "numbers"), faults)
    assert faults.bad_rows().tolist() == [0]


def test_warming_up_takes_a_good_event_of_every_topic() -> None:
    for topic in (READINGS, intake(POSTS)):
        topic.warm_up()
        sample = {f.name: SAMPLES[f.kind] for f in topic.fields}
        assert topic.from_objects([sample], 0).accepted == 1
