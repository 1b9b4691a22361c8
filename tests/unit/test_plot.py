"""The plot: what falls where."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.arrow_cells import UTC_MS
from fluvial.plot import BAND, DOT, PlotError, binned, draw, series_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
numbers = st.floats(-1e9, 1e9)


def table(means: list[float], spread: float = 0.0, step: timedelta = timedelta(minutes=1)) -> pa.Table:
    return pa.table(
        {
            "window_start": pa.array([NOON + i * step for i in range(len(means))], UTC_MS),
            "count": pa.array([10] * len(means), pa.int64()),
            "mean": pa.array(means, pa.float64()),
            "min": pa.array([m - spread for m in means], pa.float64()),
            "max": pa.array([m + spread for m in means], pa.float64()),
        }
    )


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    lines = draw(series_of(table([0, 1, 2, 3, 4, 5, 6, 7]), "window_start"), width=60, height=8, title="t")
    rows = lines[1:9]
    assert [row.index(DOT) - row.index("┤") for row in rows] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert lines[0] == f"t   {DOT} mean"


def test_the_band_reaches_from_min_to_max_around_the_mean() -> None:
    lines = draw(series_of(table([5] * 8, spread=5), "window_start"), width=60, height=11, title="t")
    column = [line[line.index("┤") + 1] for line in lines[1:12]]
    assert column == [*[BAND] * 5, DOT, *[BAND] * 5]
    assert "min to max" in lines[0]


def test_the_value_axis_has_the_extremes_and_the_time_axis_the_ends() -> None:
    lines = draw(series_of(table([0.0] + [50.0] * 98 + [100.0]), "window_start"), width=80, height=9, title="t")
    assert lines[1].startswith("100 ┤")
    assert lines[9].strip().startswith("0 ┤")
    assert "2026-03-01 12:00" in lines[-1]
    assert lines[-1].endswith("13:39 UTC")


def test_gaps_stay_empty() -> None:
    gap = pa.concat_tables([table([1, 2]), table([1, 2]).set_column(0, "window_start", table([0] * 12)[0][10:])])
    lines = draw(series_of(gap, "window_start"), width=60, height=5, title="t")
    drawn = {x for line in lines[1:6] for x, c in enumerate(line.partition("┤")[2]) if c != " "}
    assert drawn == {0, 1, 10, 11}


@given(st.lists(numbers, min_size=1, max_size=200), st.floats(0, 1e6), st.integers(20, 150), st.integers(4, 30))
def test_any_rows_fit_into_the_space(means: list[float], spread: float, width: int, height: int) -> None:
    lines = draw(series_of(table(means, spread), "window_start"), width=width, height=height, title="t")
    assert len(lines) == height + 3
    assert sum(line.count(DOT) for line in lines[1:]) >= 1
    inner = max(len(line.partition("┤")[2]) for line in lines[1 : height + 1])
    assert inner <= max(width, 8)


@given(st.lists(numbers, min_size=1, max_size=300), st.integers(1, 50))
def test_a_bin_is_the_weighted_mean_of_its_rows_within_its_band(means: list[float], width: int) -> None:
    series = series_of(table(means, 1.0), "window_start")
    begin, end = int(series.time_ms[0]), int(series.time_ms[-1]) + 1
    columns = binned(series, begin, end, width)
    at = (series.time_ms - begin) * width // (end - begin)
    for x in range(width):
        inside = series.value[at == x]
        if len(inside):
            assert columns.value[x] == pytest.approx(inside.mean(), abs=1e-3)
            assert columns.low[x] == series.low[at == x].min()
            assert columns.high[x] == series.high[at == x].max()
        else:
            assert np.isnan(columns.value[x])


def test_without_a_mean_the_count_is_drawn() -> None:
    assert series_of(table([1, 2]).select(["window_start", "count"]), "window_start").name == "count"


def test_a_named_column_is_drawn() -> None:
    assert series_of(table([1, 2]), "window_start", ["max"]).name == "max"


def test_rows_without_numbers_and_no_rows_are_refused() -> None:
    with pytest.raises(PlotError, match="no numeric column"):
        series_of(table([1]).select(["window_start"]), "window_start")
    with pytest.raises(PlotError, match="no rows"):
        series_of(table([]), "window_start")
