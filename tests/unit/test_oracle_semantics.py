"""The oracle against cases worked out by hand, sentence by sentence of docs/reference/semantics.md."""

import math
from dataclasses import replace
from typing import Any

import pytest

from fluvial.oracle.oracle import run
from fluvial.oracle.records import Dead, OracleResult, Record, Row
from fluvial.schemas.declarations import UPSTREAM_IDENTITY, Hopping, Pipeline, Rekey, Session, Table, Tumbling

# Windows of 10 ms with lateness 5, idle after 100: every case fits in a head.
SENSORS = Pipeline(
    source="iot.readings",
    event="fluvial.iot.SensorReading",
    key=("sensor_id", "metric"),
    window=Tumbling(10),
    aggregates=("count", "sum"),
    table=Table("small", ("sensor_id", "metric")),
    lateness_ms=5,
    idle_timeout_ms=100,
    early_ms=0,
    identity=("sequence", "value"),
    value="value",
)
BY_PARTITION = replace(SENSORS, time="partition")
HOPS = replace(SENSORS, window=Hopping(size_ms=20, hop_ms=10))
SESSIONS = replace(SENSORS, window=Session(gap_ms=10))
TAGS = Rekey(
    "social.posts", "social.hashtags", "fluvial.social.Hashtag", ("network",), ("hashtag",), "hashtags", "hashtag"
)
REKEYED = Pipeline(
    source="social.hashtags",
    event="fluvial.social.Hashtag",
    key=("hashtag",),
    window=Tumbling(10),
    aggregates=("count",),
    table=Table("tags", ("hashtag",)),
    time="partition",
    lateness_ms=5,
    idle_timeout_ms=100,
    early_ms=0,
    identity=UPSTREAM_IDENTITY,
    upstream=(TAGS,),
)

Entry = tuple[str, dict[str, Any]]


def reading(t: int, value: float = 1.0, sensor: str = "a", metric: str = "m", sequence: int | None = None) -> Entry:
    event = {"sensor_id": sensor, "metric": metric, "event_time": t, "value": value, "sequence": sequence}
    return "event", {"key": sensor.encode(), "event": event}


def tag(t: int, offset: int, upstream: int = 0, index: int = 0, hashtag: str = "x") -> Entry:
    identity = {"upstream_partition": upstream, "upstream_offset": offset, "upstream_index": index}
    return "event", {
        "key": hashtag.encode(),
        "event": {"hashtag": hashtag, "network": "n", "event_time": t, **identity},
    }


def tick(t: int, upstream: int | None = None) -> Entry:
    return "tick", {"time": t, "upstream": upstream}


def keyed_tick(t: int, sensor: str = "a") -> Entry:
    return "keyed_tick", {"time": t, "key": sensor.encode()}


def bad() -> Entry:
    return "bad", {}


def ran(pipeline: Pipeline, *entries: Entry, **how: Any) -> OracleResult:
    records = [Record(offset=i, timestamp=0, kind=kind, **what) for i, (kind, what) in enumerate(entries)]  # type: ignore[arg-type]
    return run(pipeline, records, **how)


def finals(result: OracleResult) -> list[tuple[Any, ...]]:
    """(first key field, start, end, count, duplicates, offset) of the final rows."""
    return [_brief(row) for row in result.rows if row["final"]]


def earlies(result: OracleResult) -> list[tuple[Any, ...]]:
    return [_brief(row) for row in result.rows if not row["final"]]


def _brief(row: Row) -> tuple[Any, ...]:
    first_key = next(iter(row.values()))
    return (first_key, row["window_start"], row["window_end"], row["count"], row["duplicates"], row["source_offset"])


def late_by(result: OracleResult) -> list[tuple[int, int]]:
    return [(late.offset, late.late_by_ms) for late in result.late]


# Key time, tumbling.


def test_a_window_closes_when_the_keys_time_reaches_its_end_plus_lateness() -> None:
    assert finals(ran(SENSORS, reading(3), reading(14))) == []
    assert finals(ran(SENSORS, reading(3), reading(15))) == [("a", 0, 10, 1, 0, 1)]


def test_windows_are_half_open_and_aligned_also_before_the_epoch() -> None:
    result = ran(SENSORS, reading(-1), reading(0), reading(9), reading(10), tick(1_000))
    assert finals(result) == [("a", -10, 0, 1, 0, 2), ("a", 0, 10, 2, 0, 4), ("a", 10, 20, 1, 0, 4)]


def test_an_event_of_a_closed_window_is_late_by_closed_through_minus_its_time() -> None:
    result = ran(SENSORS, reading(26), reading(9))
    assert late_by(result) == [(1, 20 - 9)]
    assert result.ledger.late == 1


def test_an_event_of_a_window_that_was_never_open_is_late_too_once_the_time_is_closed_through() -> None:
    assert late_by(ran(SENSORS, reading(100), reading(85))) == [(1, 90 - 85)]
    assert late_by(ran(SENSORS, reading(100), reading(90))) == []


def test_each_key_has_its_own_time_so_a_key_that_was_offline_is_not_late() -> None:
    result = ran(SENSORS, reading(90, sensor="b"), reading(3), reading(4))
    assert late_by(result) == []
    assert result.ledger.aggregated == 3


def test_metrics_of_one_sensor_are_different_keys() -> None:
    assert late_by(ran(SENSORS, reading(90, metric="n"), reading(3, metric="m"))) == []


def test_a_late_event_does_not_advance_the_keys_time_but_makes_it_heard() -> None:
    # b moves P to 180; without the late event at P = 90 the key a (heard at 80) would be idle.
    result = ran(SENSORS, reading(80), reading(90, sensor="b"), reading(2), reading(180, sensor="b"))
    assert late_by(result) == [(2, 68)]
    assert ("a", 80, 90, 1, 0, 3) not in finals(result)
    idle = ran(SENSORS, reading(80), reading(90, sensor="b"), reading(180, sensor="b"))
    assert ("a", 80, 90, 1, 0, 2) in finals(idle)


def test_a_duplicate_does_not_advance_the_keys_time() -> None:
    by_number_alone = replace(SENSORS, identity_has_time=False)
    result = ran(by_number_alone, reading(11, sequence=1), reading(3), reading(18, sequence=1))
    assert finals(result) == []
    assert result.ledger.duplicates == 1


def test_a_final_row_has_the_offset_of_the_record_that_closed_it_and_every_column_in_order() -> None:
    result = ran(SENSORS, reading(3, 1.5), reading(4, 2.0), reading(99), generation=7, partition=3)
    assert result.rows[0] == {
        "sensor_id": "a",
        "metric": "m",
        "window_start": 0,
        "window_end": 10,
        "count": 2,
        "sum": 3.5,
        "duplicates": 0,
        "final": True,
        "generation": 7,
        "source_partition": 3,
        "source_offset": 2,
    }
    assert list(result.rows[0])[4:8] == ["count", "sum", "duplicates", "final"]
    assert list(result.rows[0])[8:] == ["generation", "source_partition", "source_offset"]


# Ticks.


def test_a_partition_tick_closes_nothing_of_a_key_that_is_not_idle() -> None:
    assert finals(ran(SENSORS, reading(3), tick(102))) == []


def test_a_key_is_idle_when_partition_time_is_idle_timeout_past_when_it_was_last_heard() -> None:
    assert finals(ran(SENSORS, reading(3), tick(103))) == [("a", 0, 10, 1, 0, 1)]


def test_idle_closing_closes_through_the_greatest_end_of_the_open_windows() -> None:
    result = ran(SENSORS, reading(3), reading(12), tick(112), reading(15), reading(20))
    assert finals(result) == [("a", 0, 10, 1, 0, 2), ("a", 10, 20, 1, 0, 2)]
    assert late_by(result) == [(3, 5)]
    assert result.ledger.aggregated == 3


def test_an_event_of_a_long_silent_key_first_closes_that_keys_own_windows() -> None:
    result = ran(SENSORS, reading(3), reading(103))
    assert finals(result) == [("a", 0, 10, 1, 0, 1)]
    behind = ran(SENSORS, reading(3), reading(200, sensor="b"), reading(4))
    assert late_by(behind) == [(2, 6)]


def test_idle_keys_close_in_the_order_of_longest_silence_then_of_last_heard() -> None:
    entries = [reading(1, sensor="a"), reading(5, sensor="b"), reading(5, sensor="c"), reading(5, 2.0, sensor="b")]
    assert [row[0] for row in finals(ran(SENSORS, *entries, tick(500)))] == ["a", "c", "b"]


def test_a_keyed_tick_advances_the_time_of_every_key_of_that_record_key_and_of_no_other() -> None:
    result = ran(SENSORS, reading(3), reading(4, metric="n"), reading(5, sensor="b"), keyed_tick(15))
    assert finals(result) == [("a", 0, 10, 1, 0, 3), ("a", 0, 10, 1, 0, 3)]


def test_a_keyed_tick_does_not_advance_partition_time() -> None:
    result = ran(SENSORS, reading(3), reading(5, sensor="b"), keyed_tick(500, "b"), tick(102))
    assert finals(result) == [("b", 0, 10, 1, 0, 2)]


def test_a_keyed_tick_makes_its_keys_heard() -> None:
    kept = ran(SENSORS, reading(3), tick(90), keyed_tick(0), tick(150))
    assert finals(kept) == []


def test_a_keyed_tick_of_an_unknown_key_is_counted_and_does_nothing() -> None:
    result = ran(SENSORS, keyed_tick(500), reading(3))
    assert result.ledger.ticks == 1
    assert result.ledger.aggregated == 1


def test_ticks_are_not_measured_against_their_broker_timestamp() -> None:
    assert finals(ran(SENSORS, reading(3), tick(10**12))) == [("a", 0, 10, 1, 0, 1)]


# Dead letters.


def test_an_event_too_far_ahead_of_its_broker_timestamp_is_dead_lettered_and_touches_nothing() -> None:
    result = ran(SENSORS, reading(3), reading(300_001), reading(300_000, sensor="b"))
    assert result.dead == [Dead(1, "ahead")]
    assert result.ledger.dead_lettered == 1
    alone = ran(SENSORS, reading(3), reading(300_001), reading(4), reading(5))
    assert finals(alone) == []
    assert late_by(alone) == []


def test_an_event_before_the_year_one_is_dead_lettered_and_touches_nothing() -> None:
    year_one = -62_135_596_800_000
    result = ran(SENSORS, reading(year_one - 1), reading(-(1 << 63), sensor="b"), reading(year_one), reading(3))
    assert result.dead == [Dead(0, "ancient"), Dead(1, "ancient")]
    assert result.ledger.dead_lettered == 2
    assert result.ledger.aggregated == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_value_that_is_no_finite_number_is_refused(value: float) -> None:
    assert ran(SENSORS, reading(3, value)).dead == [Dead(0, "invalid")]


def test_the_ledger_adds_up() -> None:
    ledger = ran(SENSORS, reading(3), reading(3), bad(), tick(5), keyed_tick(6), reading(99), reading(3)).ledger
    assert (ledger.records, ledger.ticks, ledger.aggregated) == (7, 2, 2)
    assert (ledger.duplicates, ledger.late, ledger.dead_lettered) == (1, 1, 1)
    assert ledger.adds_up()


# Identity.


def test_an_equal_sequence_at_the_same_time_is_a_duplicate_whatever_its_value() -> None:
    result = ran(
        SENSORS, reading(3, 1.0, sequence=5), reading(3, 2.0, sequence=5), reading(4, 1.0, sequence=5), tick(900)
    )
    assert finals(result) == [("a", 0, 10, 2, 1, 3)]
    assert result.rows[0]["sum"] == 2.0


def test_without_a_sequence_an_equal_value_at_the_same_time_is_a_duplicate_and_minus_zero_equals_zero() -> None:
    result = ran(SENSORS, reading(3, 0.0), reading(3, -0.0), reading(3, 1.0), tick(900))
    assert finals(result) == [("a", 0, 10, 2, 1, 3)]


def test_the_field_that_decides_is_part_of_the_identity() -> None:
    assert ran(SENSORS, reading(3, 5.0), reading(3, 5.0, sequence=5)).ledger.duplicates == 0


def test_without_identity_every_event_is_aggregated() -> None:
    assert ran(replace(SENSORS, identity=()), reading(3), reading(3)).ledger.aggregated == 2
    assert ran(replace(SENSORS, identity=("sequence",)), reading(3), reading(3)).ledger.aggregated == 2


def test_a_repeat_after_its_window_is_final_is_late_and_no_duplicate() -> None:
    result = ran(SENSORS, reading(3), reading(15), reading(3))
    assert (result.ledger.duplicates, result.ledger.late) == (0, 1)


# Partition time.


def test_with_partition_time_the_partitions_events_close_every_keys_windows() -> None:
    result = ran(BY_PARTITION, reading(3), reading(4, sensor="b"), reading(15, sensor="c"))
    assert finals(result) == [("a", 0, 10, 1, 0, 2), ("b", 0, 10, 1, 0, 2)]


def test_with_partition_time_a_key_that_was_never_heard_is_late_too() -> None:
    assert late_by(ran(BY_PARTITION, reading(26), reading(9, sensor="b"))) == [(1, 11)]


def test_with_partition_time_a_tick_closes_and_a_keyed_tick_does_not() -> None:
    assert finals(ran(BY_PARTITION, reading(3), keyed_tick(99))) == []
    assert finals(ran(BY_PARTITION, reading(3), tick(15))) == [("a", 0, 10, 1, 0, 1)]


# Hopping windows.


def test_an_event_is_in_every_hopping_window_that_covers_it() -> None:
    result = ran(HOPS, reading(13), tick(900))
    assert finals(result) == [("a", 0, 20, 1, 0, 1), ("a", 10, 30, 1, 0, 1)]
    assert result.ledger.aggregated == 1


def test_an_event_is_late_only_if_all_its_hopping_windows_are_closed() -> None:
    result = ran(HOPS, reading(25), reading(13), reading(5), reading(35), reading(19))
    # 25 closes through 20: 13 counts in [10, 30) only, 5 is late; 35 closes through 30: 19 is late.
    assert late_by(result) == [(2, 20 - 5), (4, 30 - 19)]
    assert ("a", 10, 30, 2, 0, 3) in finals(result)


def test_an_event_new_to_one_hopping_window_and_a_repeat_in_another_is_aggregated_in_the_ledger() -> None:
    result = ran(replace(HOPS, identity_has_time=False), reading(13, sequence=1), reading(25, sequence=1), tick(900))
    assert (result.ledger.aggregated, result.ledger.duplicates) == (2, 0)
    assert finals(result) == [("a", 0, 20, 1, 0, 1), ("a", 10, 30, 1, 1, 2), ("a", 20, 40, 1, 0, 2)]


# Sessions.


def test_a_session_takes_what_is_within_the_gap_inclusively_and_ends_a_gap_after_its_last_event() -> None:
    result = ran(SESSIONS, reading(0), reading(10), reading(21), tick(900))
    assert finals(result) == [("a", 0, 20, 2, 0, 3), ("a", 21, 31, 1, 0, 3)]


def test_an_event_between_two_sessions_merges_them_and_folds_all_in_offset_order() -> None:
    huge = 1e17
    result = ran(SESSIONS, reading(0, huge), reading(14, 1.0), reading(8, -huge), tick(900))
    assert finals(result) == [("a", 0, 24, 3, 0, 3)]
    assert result.rows[0]["sum"] == (huge + 1.0) - huge == 0.0


def test_a_session_is_final_when_the_keys_time_reaches_its_last_event_plus_gap_plus_lateness() -> None:
    far = replace(SESSIONS, window=Session(gap_ms=3))
    assert finals(ran(far, reading(0), reading(7))) == []
    assert finals(ran(far, reading(0), reading(8))) == [("a", 0, 3, 1, 0, 1)]


def test_an_event_whose_own_session_would_have_ended_is_late_even_if_it_would_join() -> None:
    # K = 30 closes through 25; the session [16, …] is open; 15 would join it, but 15 + 10 ≤ 25.
    result = ran(SESSIONS, reading(16), reading(24), reading(30), reading(15))
    assert late_by(result) == [(3, 10)]
    assert late_by(ran(SESSIONS, reading(17), reading(24), reading(30), reading(16))) == []


def test_a_merged_session_sums_the_duplicates() -> None:
    result = ran(SESSIONS, reading(0), reading(0), reading(14), reading(14), reading(8), tick(900))
    assert finals(result) == [("a", 0, 24, 3, 2, 5)]


def test_a_duplicate_in_a_session_neither_extends_nor_merges() -> None:
    posts = replace(SESSIONS, identity_has_time=False)
    result = ran(posts, reading(0, sequence=1), reading(14, sequence=2), reading(8, sequence=1), tick(900))
    assert finals(result) == [("a", 0, 10, 1, 1, 3), ("a", 14, 24, 1, 0, 3)]


def test_with_partition_time_a_session_closes_before_the_event_that_closes_it_could_join() -> None:
    no_lateness = replace(SESSIONS, lateness_ms=0)
    assert finals(ran(replace(no_lateness, time="partition"), reading(0), reading(10))) == [("a", 0, 10, 1, 0, 1)]
    assert finals(ran(no_lateness, reading(0), reading(10), tick(900))) == [("a", 0, 20, 2, 0, 2)]


# Rekeyed topics.


def test_a_rekeyed_topics_time_is_the_least_of_what_all_upstream_partitions_announced() -> None:
    entries = [tag(3, 0), tick(90, 0), tick(14, 1), tick(15, 1)]
    assert finals(ran(REKEYED, *entries, upstream_partitions=2)) == [("x", 0, 10, 1, 0, 3)]
    assert finals(ran(REKEYED, *entries, upstream_partitions=3)) == []


def test_events_of_a_rekeyed_topic_do_not_advance_its_time() -> None:
    result = ran(REKEYED, tick(0, 0), tag(9_000, 0), tag(3, 1), upstream_partitions=1)
    assert result.ledger.aggregated == 2
    assert finals(result) == []


def test_a_rekeyed_records_identity_is_its_upstream_partition_offset_and_index() -> None:
    entries = [tag(3, 7), tag(3, 7), tag(3, 7, index=1), tag(3, 7, upstream=1), tick(90, 0), tick(90, 1)]
    assert finals(ran(REKEYED, *entries, upstream_partitions=2)) == [("x", 0, 10, 3, 1, 5)]


def test_a_rekeyed_tick_of_no_upstream_partition_is_bad() -> None:
    result = ran(REKEYED, tick(5), tick(5, 2), keyed_tick(5), upstream_partitions=2)
    assert [dead.offset for dead in result.dead] == [0, 1, 2]


# Early rows.


def test_an_early_row_comes_with_the_first_event_early_ms_past_the_windows_first_and_past_each_early_row() -> None:
    early = replace(SENSORS, window=Tumbling(100), idle_timeout_ms=1_000, early_ms=10)
    result = ran(early, reading(5), reading(14), reading(15), reading(16), reading(2), reading(27), reading(36))
    assert earlies(result) == [("a", 0, 100, 3, 0, 2), ("a", 0, 100, 6, 0, 5)]


def test_each_hopping_window_has_its_own_early_rows() -> None:
    early = replace(HOPS, early_ms=5)
    result = ran(early, reading(8), reading(12), reading(13), reading(17))
    assert earlies(result) == [("a", 0, 20, 3, 0, 2), ("a", 10, 30, 3, 0, 3)]


def test_duplicates_emit_no_early_row() -> None:
    early = replace(SENSORS, early_ms=2, identity_has_time=False)
    assert earlies(ran(early, reading(1, sequence=1), reading(9, sequence=1))) == []


def test_when_the_input_is_exhausted_every_open_window_has_an_early_row_of_the_last_offset() -> None:
    result = ran(SENSORS, reading(3), reading(12), tick(1), bad(), exhausted=True)
    assert earlies(result) == [("a", 0, 10, 1, 0, 3), ("a", 10, 20, 1, 0, 3)]
