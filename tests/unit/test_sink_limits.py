"""The controllers: how much is in flight, how long to wait, when to pause."""

import random

from hypothesis import given
from hypothesis import strategies as st

from fluvial.sinks.limits import AdaptiveLimit, Backoff, Breaker


def test_the_limit_grows_by_one_per_round_of_quick_answers() -> None:
    limit = AdaptiveLimit(most=100, start=10)
    for _ in range(11):
        limit.answered(sent_at=0.0, now=0.01, in_flight=limit.allowed)
    assert limit.allowed == 11


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = AdaptiveLimit(most=100, start=10)
    for _ in range(100):
        limit.answered(sent_at=0.0, now=0.01, in_flight=3)
    assert limit.allowed == 10


def test_a_slow_answer_shrinks_the_limit_by_a_quarter() -> None:
    limit = AdaptiveLimit(most=100, start=40, slow_seconds=0.5)
    limit.answered(sent_at=0.0, now=0.6, in_flight=40)
    assert limit.allowed == 30


def test_requests_sent_before_the_last_decrease_shrink_nothing_more() -> None:
    limit = AdaptiveLimit(most=100, start=40)
    for _ in range(40):
        limit.overloaded(sent_at=1.0, now=2.0)
    assert limit.allowed == 30
    limit.overloaded(sent_at=2.5, now=3.0)
    assert limit.allowed == 22


@given(st.integers(1, 300), st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=200))
def test_the_limit_stays_within_its_bounds(most: int, events: list[tuple[bool, float]]) -> None:
    limit = AdaptiveLimit(most=most)
    now = 0.0
    for quick, latency in events:
        now += latency
        if quick:
            limit.answered(now - latency, now, limit.allowed)
        else:
            limit.overloaded(now - latency, now)
        assert min(2, most) <= limit.allowed <= most


@given(st.integers(1, 1000), st.integers())
def test_delays_double_up_to_the_cap_and_at_least_half_of_each_is_certain(attempt: int, seed: int) -> None:
    full = min(0.1 * 2 ** min(attempt - 1, 30), 10.0)
    assert full / 2 <= Backoff(0.1, 10.0).seconds(attempt, random.Random(seed)) <= full


def test_the_breaker_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(failures_to_open=3)
    assert [breaker.failed(t) for t in (1.0, 2.0, 3.0, 4.0)] == [False, False, True, False]
    assert breaker.open_since == 3.0


def test_a_success_in_between_keeps_it_closed() -> None:
    breaker = Breaker(failures_to_open=2)
    breaker.failed(1.0)
    breaker.succeeded(2.0)
    assert not breaker.failed(3.0)
    assert breaker.wait_seconds(3.0) == 0


def test_an_open_breaker_lets_one_probe_through_ever_later() -> None:
    breaker = Breaker(failures_to_open=1, probes=Backoff(1.0, 4.0), rng=random.Random(1))
    breaker.failed(100.0)
    now, waits = 100.0, []
    for _ in range(6):
        wait = breaker.wait_seconds(now)
        waits.append(wait)
        now += wait
        assert breaker.wait_seconds(now) == 0
        breaker.take_probe(now)
        breaker.failed(now)
    assert all(0 < w <= 4.0 for w in waits)
    assert waits[0] <= 1.0
    assert waits[-1] >= 2.0


def test_the_first_success_closes_it_and_tells_how_long_it_was_open() -> None:
    breaker = Breaker(failures_to_open=1)
    breaker.failed(10.0)
    assert breaker.succeeded(17.5) == 7.5
    assert breaker.wait_seconds(17.5) == 0
    assert breaker.succeeded(18.0) is None
