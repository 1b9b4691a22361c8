"""Typed protobuf messages → columns: one pass per field."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fluvial.records import Column, Doubles, Longs
from fluvial.schemas.columns import spans_from_strings, string_lists

EVENTS = {"readings": "fluvial.iot.SensorReading", "posts": "fluvial.social.SocialPost"}


def columns_of_readings(events: Sequence[Any]) -> Mapping[str, Column]:
    """Return n `SensorReading` messages as the columns of fluvial.iot.SensorReading."""
    n = len(events)
    every = np.ones(n, np.bool_)
    counted = np.fromiter((e.HasField("sequence") for e in events), np.bool_, n)
    return {
        "sensor_id": spans_from_strings([e.sensor_id for e in events]),
        "site": spans_from_strings([e.site for e in events]),
        "metric": spans_from_strings([e.metric for e in events]),
        "event_time": Longs(np.fromiter((e.event_time_ms for e in events), np.int64, n), every),
        "value": Doubles(np.fromiter((e.value for e in events), np.float64, n), every),
        "unit": spans_from_strings([e.unit if e.HasField("unit") else None for e in events]),
        "sequence": Longs(np.fromiter((e.sequence for e in events), np.int64, n), counted),
    }


def columns_of_posts(events: Sequence[Any]) -> Mapping[str, Column]:
    """Return n `SocialPost` messages as the columns of fluvial.social.SocialPost."""
    n = len(events)
    return {
        "post_id": spans_from_strings([e.post_id for e in events]),
        "author_id": spans_from_strings([e.author_id for e in events]),
        "network": spans_from_strings([e.network for e in events]),
        "event_time": Longs(np.fromiter((e.event_time_ms for e in events), np.int64, n), np.ones(n, np.bool_)),
        "text": spans_from_strings([e.text for e in events]),
        "language": spans_from_strings([e.language if e.HasField("language") else None for e in events]),
        "hashtags": string_lists([e.hashtags for e in events]),
        "reply_to": spans_from_strings([e.reply_to if e.HasField("reply_to") else None for e in events]),
    }
