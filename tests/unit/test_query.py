"""Planning a query: keys, columns, ranges, buckets."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.arrow_cells import KeyTextError
from fluvial.query import QueryError, QueryTable, TimeRange, buckets_of, iso, plan

DAYS = QueryTable(
    "fluvial",
    "sensor_minute",
    (("sensor_id", "text"), ("metric", "text")),
    "day",
    "window_start",
    (("sensor_id", "text"), ("metric", "text"), ("day", "date"), ("window_start", "timestamp"), ("mean", "double")),
)
MONTHS = QueryTable("fluvial", "numbered", (("number", "int"),), "month", "window_start", (("number", "int"),))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = TimeRange(NOON, NOON + timedelta(hours=1))
moments = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))


def test_a_query_names_one_partition_and_a_half_open_range() -> None:
    query = plan(DAYS, ["a", "t"], HOUR, columns=["window_start", "mean"])
    assert query.cql == (
        "SELECT window_start, mean FROM fluvial.sensor_minute WHERE sensor_id = ? AND metric = ? AND day = ? "
        "AND window_start >= ? AND window_start < ? ORDER BY window_start DESC LIMIT ?"
    )


def test_names_that_cql_reserves_are_quoted() -> None:
    table = QueryTable("fluvial", "Order", (("token", "text"),), "day", "window_start", (("token", "text"),))
    assert plan(table, ["x"], HOUR).cql.startswith('SELECT "token" FROM fluvial."Order" WHERE "token" = ?')


@pytest.mark.parametrize("key", [[], ["a"], ["a", "b", "c"]])
def test_a_wrong_number_of_keys_is_refused_with_the_names_of_the_keys(key: list[str]) -> None:
    with pytest.raises(QueryError, match=r"read by sensor_id and metric, given \d keys?; .*SENSOR_ID METRIC"):
        plan(DAYS, key, HOUR)


def test_an_unknown_column_is_refused_with_the_known_ones() -> None:
    with pytest.raises(QueryError, match=r"no column median; its columns are sensor_id, .*mean"):
        plan(DAYS, ["a", "t"], HOUR, columns=["median"])


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(QueryError, match=r"from 2026-03-01T12:00:00Z to 2026-03-01T12:00:00Z is empty"):
        plan(DAYS, ["a", "t"], TimeRange(NOON, NOON))


def test_a_key_of_another_type_is_parsed_or_refused() -> None:
    assert plan(MONTHS, ["42"], HOUR).key == (42,)
    with pytest.raises(KeyTextError, match="number is a int, which 'x' is not"):
        plan(MONTHS, ["x"], HOUR)


def test_too_many_buckets_are_refused() -> None:
    with pytest.raises(QueryError, match="more than 10,000 days"):
        plan(DAYS, ["a", "t"], TimeRange(datetime(1971, 1, 1, tzinfo=UTC), NOON))


@given(moments, moments)
def test_the_buckets_are_exactly_the_days_that_the_range_touches(one: datetime, other: datetime) -> None:
    begin, end = sorted((one, one + (other - one) / 50))
    if begin == end:
        return
    days = buckets_of(plan(DAYS, ["a", "t"], TimeRange(begin, end), order="oldest"))
    assert days[0] == begin.date()
    assert days == [days[0] + timedelta(days=i) for i in range(len(days))]
    last = datetime.combine(days[-1], datetime.min.time(), UTC)
    assert last < end <= last + timedelta(days=1)


@given(moments, moments)
def test_the_buckets_are_exactly_the_months_that_the_range_touches(one: datetime, other: datetime) -> None:
    begin, end = sorted((one, other))
    if begin == end:
        return
    months = buckets_of(plan(MONTHS, ["1"], TimeRange(begin, end)))
    last = end - timedelta(milliseconds=1)
    touched = {(begin + timedelta(days=d)).date().replace(day=1) for d in range((last - begin).days + 1)}
    touched.add(last.date().replace(day=1))
    assert months == sorted(touched, reverse=True)


def test_an_end_at_midnight_does_not_touch_the_day_that_it_begins() -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    assert buckets_of(plan(DAYS, ["a", "t"], TimeRange(NOON, midnight))) == [date(2026, 3, 1)]


def test_instants_are_shown_without_needless_digits() -> None:
    assert iso(NOON) == "2026-03-01T12:00:00Z"
    assert iso(NOON + timedelta(milliseconds=5)) == "2026-03-01T12:00:00.005Z"
