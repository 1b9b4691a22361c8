"""MQTT routes, payloads and Sparkplug B, without a broker."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.errors import SettingsError
from fluvial.producers.gateway.intake import Unreadable
from fluvial.producers.gateway.mqtt_routes import Route, events_of, parse_routes
from fluvial.producers.gateway.sparkplug import SparkplugNodes
from fluvial.schemas import sparkplug_pb2 as pb
from support.gate import NOW_MS

FIELDS = {"iot.readings": ["sensor_id", "site", "metric", "event_time", "value"], "social.posts": ["text"]}


def test_levels_are_fields() -> None:
    (route,) = parse_routes("plants/{site}/+/{sensor_id}/{metric}=iot.readings", FIELDS)
    assert route.filter == "plants/+/+/+/+"
    assert route.match("plants/p7/x/s1/temp") == {"site": "p7", "sensor_id": "s1", "metric": "temp"}
    assert route.match("plants/p7/x/s1") is None
    assert route.match("plants/p7/x/s1/temp/more") is None
    assert route.match("other/p7/x/s1/temp") is None
    assert Route("a/#", "t").match("a/b/c") == {}


@pytest.mark.parametrize(
    "setting",
    ["", "plants/{site}", "a/{nothing}=iot.readings", "a=none", "/a=iot.readings", "$SYS/#=iot.readings",
     "a/#/b=iot.readings", "a/x{site}=iot.readings"],
)  # fmt: skip
def test_routes_that_lead_nowhere_are_refused(setting: str) -> None:
    with pytest.raises(SettingsError):
        parse_routes(setting, FIELDS)


LEVELS = {"sensor_id": "s1", "metric": "t"}


def test_plain_payloads() -> None:
    assert events_of(LEVELS, b"21.5", NOW_MS) == [{**LEVELS, "value": 21.5, "event_time": NOW_MS}]
    assert events_of(LEVELS, b'{"value": 1, "event_time": 5}', NOW_MS) == [{**LEVELS, "value": 1, "event_time": 5}]
    assert events_of(LEVELS, b'[{"value": 1}, {"value": 2}]', NOW_MS) == [
        {**LEVELS, "value": 1},
        {**LEVELS, "value": 2},
    ]
    (reading,) = events_of({"sensor_id": "s1"}, b'[{"n": "x:temp", "v": 3, "t": -1}]', NOW_MS)
    assert reading == {"sensor_id": "s1", "metric": "temp", "value": 3, "event_time": NOW_MS - 1000, "unit": None}


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b'"text"', b"true", b"null", b"[5]", b'{"sensor_id": "other"}', b"[" * 10_000]
)
def test_other_payloads_are_named(payload: bytes) -> None:
    (found,) = events_of(LEVELS, payload, NOW_MS)
    assert isinstance(found, Unreadable)


def metric(name: str = "", alias: int | None = None, **value: Any) -> Any:
    m = pb.Payload.Metric(**value)
    if name:
        m.name = name
    if alias is not None:
        m.alias = alias
    return m


def payload(seq: int, *metrics: Any) -> bytes:
    return pb.Payload(timestamp=NOW_MS, seq=seq, metrics=list(metrics)).SerializeToString()


def test_births_name_what_data_refer_to() -> None:
    nodes = SparkplugNodes()
    birth = payload(
        0, metric("bdSeq", long_value=0), metric("temp", 1, double_value=1.0), metric("on", 2, boolean_value=True)
    )
    events, rebirth = nodes.events_of("spBv1.0/g/NBIRTH/n", birth, 0)
    assert [(e["sensor_id"], e["metric"], e["value"]) for e in events] == [("g/n", "temp", 1.0), ("g/n", "on", 1.0)]
    assert rebirth is None
    device = payload(1, metric("level", 1, datatype=3, int_value=2**32 - 5))
    events, _ = nodes.events_of("spBv1.0/g/DBIRTH/n/d", device, 0)
    assert [(e["sensor_id"], e["value"]) for e in events] == [("g/n/d", -5.0)]
    data = payload(2, metric(alias=1, int_value=7, timestamp=NOW_MS - 5), metric(alias=1, is_null=True))
    events, rebirth = nodes.events_of("spBv1.0/g/DDATA/n/d", data, 0)
    assert events == [{"sensor_id": "g/n/d", "metric": "level", "event_time": NOW_MS - 5, "value": 7.0}]
    assert rebirth is None
    assert nodes.gaps == 0


def test_a_gap_is_counted_and_a_rebirth_asked_for() -> None:
    nodes = SparkplugNodes()
    nodes.events_of("spBv1.0/g/NBIRTH/n", payload(0, metric("t", 1, double_value=1.0)), 0)
    for seq in (1, 2):
        assert nodes.events_of("spBv1.0/g/NDATA/n", payload(seq, metric(alias=1, double_value=1.0)), 0)[1] is None
    events, rebirth = nodes.events_of("spBv1.0/g/NDATA/n", payload(6, metric(alias=1, double_value=2.0)), 0)
    assert [e["value"] for e in events] == [2.0]
    assert rebirth == "spBv1.0/g/NCMD/n"
    assert nodes.gaps == 3
    for seq in range(7, 7 + 300):  # the number wraps at 256
        assert nodes.events_of("spBv1.0/g/NDATA/n", payload(seq % 256, metric(alias=1, double_value=2.0)), 0)[1] is None


def test_data_without_a_birth_are_no_readings() -> None:
    nodes = SparkplugNodes()
    events, rebirth = nodes.events_of("spBv1.0/g/NDATA/n", payload(9, metric(alias=1, double_value=1.0)), 0)
    assert [e.reason for e in events] == ["an alias (1) that no birth has named"]
    assert rebirth == "spBv1.0/g/NCMD/n"
    nodes.events_of("spBv1.0/g/NBIRTH/n", payload(0, metric("t", 1, double_value=1.0)), 0)
    nodes.events_of("spBv1.0/g/NDEATH/n", payload(0), 0)
    events, _ = nodes.events_of("spBv1.0/g/NDATA/n", payload(1, metric(alias=1, double_value=1.0)), 0)
    assert isinstance(events[0], Unreadable)
    assert nodes.events_of("spBv1.0/STATE/host", b"ONLINE", 0) == ([], None)


@given(st.sampled_from(["NBIRTH", "NDATA", "DDATA", "NDEATH"]), st.binary(max_size=60))
def test_any_bytes_are_judged(kind: str, data: bytes) -> None:
    events, _ = SparkplugNodes().events_of(f"spBv1.0/g/{kind}/n", data, NOW_MS)
    assert all(isinstance(e, Unreadable | dict) for e in events)
