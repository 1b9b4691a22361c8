"""What surrounds a replay: where reading starts, what retention has taken, generations, rates, and how rows differ."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from fluvial.schemas.catalog import Catalog
from fluvial.services.generation import hiding
from fluvial.services.replay_apply import refuse_lower_generation
from fluvial.services.replay_plan import ReplayRequest, Source, earliest_timestamp, pipeline_and_topic, plan_replay
from fluvial.services.replay_reading import Throttle
from fluvial.services.replay_records import ReplayError, ReplayRecord
from fluvial.services.side_tables import side_name
from fluvial.services.table_rows import differences
from fluvial.settings import Settings
from fluvial.stream_apps.replay_rules import widened
from fluvial.stream_apps.shipped import DECLARATION

NOON = 1_709_294_400_000
MINUTE = 60_000
SETTINGS = Settings()
CATALOG = Catalog([DECLARATION])


def planned(source: Source, name: str = "sensor_minute", **asked: Any) -> Any:
    request = ReplayRequest(**({"pipeline": name, "begin": NOON, "end": NOON + 90_000} | asked))
    pipeline, topic = pipeline_and_topic(SETTINGS, CATALOG, name)
    return plan_replay(SETTINGS, request, pipeline, topic, source)


def test_reading_starts_where_the_first_event_of_the_range_can_be() -> None:
    pipeline, topic = pipeline_and_topic(SETTINGS, CATALOG, "sensor_minute")
    span = widened(pipeline, NOON, NOON + 90_000)
    # Five minutes ahead of its timestamp, and the hour and lateness of the topic's longest pipeline.
    assert earliest_timestamp(SETTINGS, topic, pipeline, span) == NOON - 5 * MINUTE - 61 * MINUTE
    plan = planned(Source({0: (0, 100), 1: (0, 50), 2: (10, 20)}, {0: (40, NOON), 1: None, 2: (15, NOON)}))
    assert plan.stretches == {0: (40, 100), 1: (50, 50), 2: (15, 20)}
    assert plan.offsets == 65
    assert plan.notes == ("windows from 2024-03-01T12:00:00Z to 2024-03-01T12:02:00Z, widened to whole windows",)


@pytest.mark.parametrize("asked", [{"lateness": "declared"}, {"name": "network_minute"}])
def test_the_whole_log_is_read_where_its_history_decides(asked: dict[str, Any]) -> None:
    plan = planned(Source({0: (0, 100)}, {0: (40, NOON)}), **asked)
    assert plan.stretches == {0: (0, 100)}
    assert "from its first record" in plan.notes[1]


def test_a_range_that_retention_has_cut_is_refused_with_the_first_whole_one() -> None:
    cut = Source({0: (0, 100), 1: (30, 100)}, {0: (40, NOON), 1: (30, NOON)})
    with pytest.raises(ReplayError, match=r"iot.readings\[1\] has lost records") as refused:
        planned(cut)
    assert "--from 2024-03-01T13:07:00Z" in refused.value.hint
    plan = planned(cut, incomplete=True)
    assert plan.stretches == {0: (40, 100), 1: (30, 100)}
    assert "what is left" in plan.notes[-1]


def test_what_was_deleted_long_before_the_range_does_not_matter() -> None:
    assert planned(Source({0: (30, 100)}, {0: (31, NOON)})).stretches == {0: (31, 100)}


@pytest.mark.parametrize("asked", [{"begin": NOON + 90_000}, {"across_partitions": True, "lateness": "declared"}])
def test_contradictions_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ReplayError):
        planned(Source({0: (0, 100)}, {0: (40, NOON)}), **asked)


def run(generation: int, worker_generation: int = 0, destination: str = "fluvial.sensor_minute") -> ReplayRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return ReplayRecord(
        "sensor_minute", generation, "done", "iot.readings", destination, now, now, "unlimited", False, {}, {},
        worker_generation, "", frozenset(), 0, 0, 0, now, now,
    )  # fmt: skip


def test_a_raised_generation_must_be_above_the_replays_made_before_it() -> None:
    before = [run(1), run(2), run(3, destination="sensor_minute_side")]
    assert hiding(before, 0) is None  # nothing was raised: replays are meant to win
    assert hiding(before, 2) == before[1]
    assert hiding(before, 3) is None
    assert hiding([*before, run(4, worker_generation=3)], 3) is None  # made above the raised worker


def test_a_replay_below_the_rows_of_its_range_is_refused() -> None:
    refuse_lower_generation(pa.table({"generation": [0, 3]}), run(4))
    with pytest.raises(ReplayError, match="generation 5, above this replay's 4"):
        refuse_lower_generation(pa.table({"generation": [0, 5]}), run(4))


def test_a_throttle_keeps_the_rate_over_uneven_batches() -> None:
    now = 100.0
    throttle = Throttle(1000, lambda: now)
    assert throttle.wait_seconds(500) == pytest.approx(0.5)
    now += 0.2
    assert throttle.wait_seconds(100) == pytest.approx(0.4)
    now += 10.0  # a pause is not made up for
    assert throttle.wait_seconds(1000) == pytest.approx(1.0)
    assert Throttle(0).wait_seconds(1_000_000) == 0


def test_rows_differ_by_the_bit_in_their_values_only() -> None:
    left = pa.table({
        "k": ["a", "b", "c", "d", "e"], "window_start": [1, 1, 1, 1, 1], "sum": [0.0, 0.1 + 0.2, 1.0, float("nan"), 5.0],
        "top": [["x"], [], None, ["y"], ["z"]], "generation": [0, 0, 0, 0, 0],
    })  # fmt: skip
    right = pa.table({
        "k": ["f", "d", "c", "b", "a"], "window_start": [1, 1, 1, 1, 1], "sum": [0.0, float("nan"), 1.0, 0.3, -0.0],
        "top": [["x"], ["y"], [], [], ["x"]], "generation": [1, 1, 1, 1, 1],
    })  # fmt: skip
    found = differences(["k", "window_start"], left, right)
    assert found.same.tolist() == [[2, 2], [3, 1]]
    assert found.changed.tolist() == [[0, 4], [1, 3]]
    assert (found.left.tolist(), found.right.tolist()) == ([4], [0])


@pytest.mark.parametrize("suffix", ["", "Fixed", "1a", "a-b", "a" * 40])
def test_a_side_table_s_name_is_one_that_cassandra_takes(suffix: str) -> None:
    assert side_name("sensor_minute", "fixed") == "sensor_minute_fixed"
    with pytest.raises(ReplayError):
        side_name("sensor_minute", suffix)
