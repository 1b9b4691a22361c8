"""The ticks of a completed import close every window that holds an imported event, and no later one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.oracle.oracle import run
from fluvial.oracle.records import Record
from fluvial.producers.completion import NONE, closing_instant, completion
from fluvial.producers.latest import LatestTimes
from fluvial.schemas.columns import spans_from_strings
from fluvial.schemas.declarations import HOUR_MS, MINUTE_MS, Hopping, Pipeline, Rekey, Session, Table, Tumbling
from fluvial.stream_apps.shipped import (
    AUTHOR_SESSIONS,
    DECLARATION,
    HASHTAG_MINUTE,
    NETWORK_MINUTE,
    SENSOR_HOUR,
    SENSOR_MINUTE,
    TRENDING_HOUR,
)
from fluvial.transport.murmur2 import partition_for

SHIPPED = DECLARATION.pipelines
TIMES = st.integers(-(10**13), 10**14)


def closing(pipeline: Pipeline, t: int, topic: str, pipelines: Sequence[Pipeline] = SHIPPED) -> int:
    return int(closing_instant(np.array([t]), pipeline, topic, pipelines)[0])


@pytest.mark.parametrize(
    ("pipeline", "t", "instant"),
    [
        (SENSOR_MINUTE, 0, 2 * MINUTE_MS),
        (SENSOR_MINUTE, MINUTE_MS - 1, 2 * MINUTE_MS),
        (SENSOR_MINUTE, MINUTE_MS, 3 * MINUTE_MS),
        (SENSOR_MINUTE, -1, MINUTE_MS),
        (SENSOR_HOUR, 5, HOUR_MS + MINUTE_MS),
    ],
)
def test_a_tumbling_window_closes_at_its_end_plus_lateness(pipeline: Pipeline, t: int, instant: int) -> None:
    assert closing(pipeline, t, "iot.readings") == instant


@given(TIMES)
def test_the_last_of_several_hopping_windows_counts(t: int) -> None:
    hopping = Pipeline("a", "E", ("k",), Hopping(60, 20), ("count",), Table("h", ("k",)), lateness_ms=7, early_ms=0)
    last = max(s + 60 for s in range(t // 20 * 20 - 60, t // 20 * 20 + 61, 20) if s <= t < s + 60)
    assert closing(hopping, t, "a", [hopping]) == last + 7


def test_a_session_closes_a_gap_and_the_lateness_after_its_last_event() -> None:
    assert closing(AUTHOR_SESSIONS, 1_000, "social.posts") == 1_000 + 35 * MINUTE_MS


@given(TIMES)
def test_behind_a_rekeying_the_source_is_ticked_as_far_as_the_window_there_needs(t: int) -> None:
    assert closing(NETWORK_MINUTE, t, "social.posts") == t // MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS


@given(TIMES)
def test_behind_the_rows_of_another_pipeline_its_windows_have_to_close_first(t: int) -> None:
    # hashtag_minute announces the greatest aligned end <= P − its lateness; trending_hour has none of its own.
    instant = closing(TRENDING_HOUR, t, "social.posts")
    hour_end = t // HOUR_MS * HOUR_MS + HOUR_MS

    def announced(p: int) -> int:
        return (p - HASHTAG_MINUTE.lateness_ms) // MINUTE_MS * MINUTE_MS

    assert announced(instant) >= hour_end
    assert announced(instant - 1) < hour_end


@given(TIMES, st.integers(1, 4), st.integers(0, 100), st.integers(0, 100))
def test_rows_of_hopping_windows_announce_less(t: int, hops: int, lateness: int, behind: int) -> None:
    table = Table("first", ("k",))
    first = Pipeline(
        "a", "E", ("k",), Hopping(20 * hops, 20), ("count",), table, time="partition", lateness_ms=lateness, early_ms=0
    )
    rekey = Rekey(first.result_topic, "b", "F", ("k", "window_start", "count"), ("k",))
    second = Pipeline(
        "b", "F", ("k",), Tumbling(100), ("count",), Table("second", ("k",)), time="partition", lateness_ms=behind,
        early_ms=0, upstream=(rekey,),
    )  # fmt: skip
    instant = closing(second, t, "a", [first, second])
    wanted = t // 20 * 20 // 100 * 100 + 100 + behind

    def announced(p: int) -> int:
        aligned_end = (p - lateness - 20 * hops) // 20 * 20 + 20 * hops
        return aligned_end - (20 * hops - 20)

    assert announced(instant) >= wanted
    assert announced(instant - 1) < wanted


@given(st.dictionaries(st.text(min_size=1, max_size=5), TIMES, min_size=1), st.integers(1, 6))
def test_sensors_get_a_tick_per_key_and_one_per_partition_that_has_an_event(
    latest: dict[str, int], partitions: int
) -> None:
    keys = spans_from_strings(list(latest))
    times = np.array(list(latest.values()))
    made = completion(keys, times, "iot.readings", SHIPPED, partitions)
    expected = times // HOUR_MS * HOUR_MS + HOUR_MS + MINUTE_MS
    expected = np.maximum(expected, times // MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS)
    assert made.key_instant.tolist() == expected.tolist()
    assert len(made.keys) == len(latest)
    at = partition_for(keys, partitions)
    for p in range(partitions):
        assert made.partition_instant[p] == (expected[at == p].max() if (at == p).any() else NONE)


def test_posts_tick_every_partition_since_their_windows_hold_events_of_all() -> None:
    made = completion(spans_from_strings(["a"]), np.array([HOUR_MS + 1]), "social.posts", SHIPPED, 8)
    own = int(partition_for(made.keys, 8)[0])
    trending = 2 * HOUR_MS + MINUTE_MS
    assert made.key_instant.tolist() == [HOUR_MS + 1 + 35 * MINUTE_MS]
    assert made.partition_instant.tolist() == [trending] * 8
    # Of sessions alone, only the author's partition is ticked.
    made = completion(spans_from_strings(["a"]), np.array([HOUR_MS + 1]), "social.posts", [AUTHOR_SESSIONS], 8)
    assert [p for p in range(8) if made.partition_instant[p] != NONE] == [own]


READINGS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-200, 200)), min_size=1, max_size=12)
TINY = Pipeline(
    "iot.readings", "E", ("sensor_id",), Tumbling(10), ("count",), Table("tumbling", ("sensor_id",)),
    lateness_ms=5, idle_timeout_ms=1_000, early_ms=0,
)  # fmt: skip
TINY_ONES = [
    TINY,
    replace(TINY, window=Hopping(20, 10), table=Table("hopping", ("sensor_id",))),
    replace(TINY, window=Session(7), table=Table("sessions", ("sensor_id",))),
    replace(TINY, time="partition", table=Table("by_partition", ("sensor_id",))),
    replace(TINY, time="partition", window=Session(30), table=Table("partition_sessions", ("sensor_id",))),
]


def left_open(readings: list[tuple[str, int]], pipelines: Sequence[Pipeline], earlier: int = 0) -> list[str]:
    """Return the names of the pipelines that the oracle leaves with an open window when an import was completed."""
    latest: dict[str, int] = {}
    for sensor, t in readings:
        latest[sensor] = max(t, latest.get(sensor, t))
    made = completion(spans_from_strings(list(latest)), np.array(list(latest.values())), "iot.readings", pipelines, 1)
    records = [
        Record(i, 10**6, "event", key=s.encode(), event={"sensor_id": s, "event_time": t})
        for i, (s, t) in enumerate(readings)
    ]
    for i in range(len(made.keys)):
        instant = int(made.key_instant[i]) - earlier
        records.append(Record(len(records), 0, "keyed_tick", key=made.keys.bytes_at(i), time=instant))
    records.append(Record(len(records), 0, "tick", time=int(made.partition_instant[0]) - earlier))
    results = {p.name: run(p, records, exhausted=True) for p in pipelines}
    return [name for name, result in results.items() if not all(row["final"] for row in result.rows)]


@given(READINGS)
def test_the_oracle_has_no_open_window_after_the_ticks(readings: list[tuple[str, int]]) -> None:
    assert left_open(readings, TINY_ONES) == []


@given(READINGS, st.sampled_from(TINY_ONES))
def test_the_oracle_has_an_open_window_when_the_ticks_are_a_millisecond_earlier(
    readings: list[tuple[str, int]], pipeline: Pipeline
) -> None:
    assert left_open(readings, [pipeline], earlier=1) == [pipeline.name]


def test_nothing_imported_ticks_nothing() -> None:
    made = completion(spans_from_strings([]), np.zeros(0, np.int64), "iot.readings", SHIPPED, 2)
    assert len(made.keys) == 0
    assert made.partition_instant.tolist() == [NONE, NONE]
    assert isinstance(AUTHOR_SESSIONS.window, Session)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcü"), st.integers(-(2**60), 2**60))), max_size=5))
def test_the_latest_times_are_those_of_all_events(parts: list[list[tuple[str, int]]]) -> None:
    latest = LatestTimes()
    expected: dict[bytes, int] = {}
    for part in parts:
        latest.add(spans_from_strings([k for k, _ in part]), np.array([t for _, t in part], np.int64))
        for k, t in part:
            expected[k.encode()] = max(t, expected.get(k.encode(), t))
    keys, times = latest.result()
    assert {keys.bytes_at(i): int(times[i]) for i in range(len(keys))} == expected


def test_the_latest_times_are_compacted_while_they_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluvial.producers.latest._COMPACT_ROWS", 10)
    latest = LatestTimes()
    for i in range(100):
        latest.add(spans_from_strings([f"k{i % 7}", "z"]), np.array([i, -i]))
    assert latest._rows <= 40
    _, times = latest.result()
    assert sorted(times.tolist()) == [0, 93, 94, 95, 96, 97, 98, 99]
