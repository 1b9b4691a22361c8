import pytest
from spans import Sample, TooShortError, span_of


def test_what_was_handled_before_the_end_of_the_warm_up_does_not_count() -> None:
    samples = [Sample(0.0, (100,), (5.0,)), Sample(1.0, (200,), (6.0,)), Sample(3.0, (1000,), (10.0,))]

    span = span_of(samples, warm_up=200, events=1000)

    assert (span.events, span.seconds, span.cpu_seconds) == (800, 2.0, 4.0)
    assert (span.events_per_second, span.events_per_cpu_second) == (400.0, 200.0)


def test_several_processes_count_together_from_the_moment_when_all_have_begun() -> None:
    samples = [
        Sample(0.0, (300, None), (1.0, 0.5)),
        Sample(1.0, (400, 100), (2.0, 1.0)),
        Sample(2.0, (600, 100), (3.0, 1.5)),
        Sample(4.0, (600, 500), (3.0, 3.5)),
    ]

    span = span_of(samples, warm_up=200, events=1000)

    assert (span.events, span.seconds, span.cpu_seconds) == (600, 3.0, 3.5)


def test_a_run_that_did_not_get_to_the_end_gives_no_rate() -> None:
    with pytest.raises(TooShortError, match="reached 900 of 1,000"):
        span_of([Sample(0.0, (200,), (1.0,)), Sample(1.0, (900,), (2.0,))], warm_up=200, events=1000)


def test_a_run_that_ends_with_its_warm_up_gives_no_rate() -> None:
    with pytest.raises(TooShortError, match="too few"):
        span_of([Sample(0.0, (1000,), (1.0,))], warm_up=200, events=1000)


def test_a_run_in_which_no_process_began_gives_no_rate() -> None:
    with pytest.raises(TooShortError, match="reached 0"):
        span_of([Sample(0.0, (None,), (1.0,))], warm_up=0, events=10)
