"""The values of one window, folded from the list of its aggregated events every time anybody asks."""

import math
from collections.abc import Sequence
from typing import Any

from fluvial.oracle.records import Event
from fluvial.oracle.sketches import distinct, quantile
from fluvial.schemas.declarations import Pipeline

# (offset, event time, event) of every aggregated event of a window.
Held = tuple[int, int, Event]


def aggregate(pipeline: Pipeline, events: Sequence[Held]) -> dict[str, Any]:
    """Return the declared aggregates of at least one event, in the order they are declared (``top`` as two columns)."""
    ordered = sorted(events, key=lambda held: held[0])
    values: dict[str, Any] = {}
    for name in pipeline.aggregates:
        if name == "top":
            ranked = _top(pipeline, ordered)
            values["top"] = [item for item, _ in ranked]
            values["top_counts"] = [amount for _, amount in ranked]
        else:
            values[name] = _one(name, pipeline, ordered)
    return values


def _one(name: str, pipeline: Pipeline, events: Sequence[Held]) -> Any:
    if name == "count":
        return len(events)
    if name == "distinct":
        assert pipeline.distinct is not None
        items = [event[pipeline.distinct] for _, _, event in events]
        return distinct(item.encode() for item in items if item is not None)
    assert pipeline.value is not None
    values = [float(event[pipeline.value]) for _, _, event in events]
    match name:
        case "sum":
            return _sum(values)
        case "mean":
            return _sum(values) / len(values)
        case "min":
            return _first_that(values, lambda v, best: v < best)
        case "max":
            return _first_that(values, lambda v, best: v > best)
        case "first":
            return values[min(range(len(events)), key=lambda i: (events[i][1], events[i][0]))]
        case "last":
            return values[max(range(len(events)), key=lambda i: (events[i][1], events[i][0]))]
        case "stddev":
            return _stddev(values)
        case "p50" | "p95" | "p99":
            return quantile(values, {"p50": 0.5, "p95": 0.95, "p99": 0.99}[name])
    raise AssertionError(f"no aggregate {name}")


def _sum(values: list[float]) -> float:
    total = 0.0
    for v in values:
        total = total + v
    return total


def _first_that(values: list[float], beats: Any) -> float:
    best = values[0]
    for v in values[1:]:
        if beats(v, best):
            best = v
    return best


def _stddev(values: list[float]) -> float:
    n = float(len(values))
    s1 = 0.0
    s2 = 0.0
    for v in values:
        d = v - values[0]
        s1 = s1 + d
        s2 = s2 + d * d
    variance = (s2 - s1 * s1 / n) / n
    return math.sqrt(0.0 if variance < 0 else variance)


def _top(pipeline: Pipeline, events: Sequence[Held]) -> list[tuple[str, float]]:
    assert pipeline.top is not None
    sums: dict[str, float] = {}
    for _, _, event in events:
        item = event[pipeline.top]
        if item is not None:
            amount = 1.0 if pipeline.value is None else float(event[pipeline.value])
            sums[item] = sums.get(item, 0.0) + amount
    ranked = sorted(sums.items(), key=lambda pair: (-pair[1], pair[0].encode()))
    return ranked[: pipeline.top_k]
