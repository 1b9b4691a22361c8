"""The oracle's values: folds worked out by hand, sketches against published vectors and their promised errors."""

import math
from typing import Any

import pytest

from fluvial.oracle.aggregates import Held, aggregate
from fluvial.oracle.sketches import distinct, quantile, xxh64
from fluvial.schemas.declarations import AGGREGATES, Pipeline, Table, Tumbling

EVERYTHING = Pipeline(
    source="s",
    event="E",
    key=("k",),
    window=Tumbling(1_000),
    aggregates=AGGREGATES,
    table=Table("t", ("k",)),
    value="value",
    distinct="who",
    top="what",
    top_k=2,
)


def values_of(*events: tuple[int, float, str | None, str | None]) -> dict[str, Any]:
    """Aggregate events given as (event time, value, who, what), at offsets 0, 1, …"""
    held: list[Held] = [(i, t, {"value": v, "who": who, "what": what}) for i, (t, v, who, what) in enumerate(events)]
    return aggregate(EVERYTHING, held)


def folded(*values: float) -> dict[str, Any]:
    return values_of(*[(0, v, "w", "x") for v in values])


def test_the_sum_is_a_left_fold_from_zero() -> None:
    assert folded(1e16, 1.0, -1e16, 1.0)["sum"] == 1.0
    assert math.copysign(1, folded(-0.0)["sum"]) == 1.0


def test_mean_is_sum_by_count() -> None:
    assert folded(1.0, 2.0, 4.0)["mean"] == 7.0 / 3


def test_min_and_max_keep_the_first_of_equal_zeros() -> None:
    assert math.copysign(1, folded(-0.0, 0.0)["max"]) == -1.0
    assert math.copysign(1, folded(0.0, -0.0)["min"]) == 1.0


def test_first_and_last_are_by_event_time_then_offset() -> None:
    values = values_of((5, 1.0, None, None), (3, 2.0, None, None), (3, 3.0, None, None), (5, 4.0, None, None))
    assert (values["first"], values["last"]) == (2.0, 4.0)


def test_stddev_is_that_of_the_population_and_never_below_zero() -> None:
    assert folded(2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0)["stddev"] == 2.0
    assert folded(1e9 + 0.1, 1e9 + 0.1, 1e9 + 0.1)["stddev"] == 0.0


def test_sums_may_overflow_and_the_deviation_is_then_no_number() -> None:
    values = folded(1e308, 1e308, -1e308)
    assert values["sum"] == math.inf
    assert math.isnan(values["stddev"]) or values["stddev"] == math.inf


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_xxh64_gives_the_published_hashes(data: bytes, expected: int) -> None:
    assert xxh64(data) == expected


def test_distinct_is_exact_for_few_and_within_a_few_percent_for_many() -> None:
    assert distinct([b"a", b"b", b"a", b""]) == 3
    assert values_of((0, 1.0, "ü", None), (1, 1.0, None, None), (2, 1.0, "u", None))["distinct"] == 2
    assert distinct(str(i).encode() for i in range(20_000)) == pytest.approx(20_000, rel=0.05)


def test_quantiles_are_within_one_percent_of_the_value_at_their_rank() -> None:
    values = [(-1.0) ** i * 1.37**i for i in range(101)] + [0.0] * 10
    ordered = sorted(values)
    for q in (0.05, 0.5, 0.95, 0.99):
        assert quantile(values, q) == pytest.approx(ordered[math.floor(q * (len(values) - 1))], rel=0.0100001)


def test_the_quantile_is_the_first_bucket_whose_cumulative_count_is_above_the_rank() -> None:
    # Ranks 0.5·1 and 0.5·2: of two values the lesser, of three the middle one.
    assert quantile([100.0, 1.0], 0.5) == quantile([1.0], 0.5)
    assert quantile([100.0, 1.0, 10.0], 0.5) == quantile([10.0], 0.5)


def test_one_is_in_bucket_zero_and_tiny_values_are_zero() -> None:
    gamma = 1.01 / 0.99
    assert quantile([1.0], 0.5) == 2 * math.exp(0.0) / (gamma + 1)
    assert quantile([-1.0], 0.5) == -quantile([1.0], 0.5)
    assert quantile([9e-301, -9e-301, -0.0], 0.99) == 0.0
    assert quantile([1e-300], 0.5) == pytest.approx(1e-300, rel=0.01)


def test_a_quantile_beyond_the_greatest_double_is_infinite() -> None:
    assert quantile([1.7e308], 0.5) == math.inf


def test_top_is_greatest_first_ties_by_bytes_of_the_name_and_null_is_no_item() -> None:
    values = values_of((0, 1.0, None, "é"), (1, 1.0, None, "z"), (2, 3.0, None, "a"), (3, 9.0, None, None))
    assert (values["top"], values["top_counts"]) == (["a", "z"], [3.0, 1.0])
