"""When a partition is stalled."""

import pytest
from faust.types import TP

from fluvial.transport.watchdog import Progress, Reading, observe

P = TP("readings", 0)
Q = TP("readings", 1)


def after(*readings: tuple[float, Reading], stall_seconds: float = 60.0) -> list[TP]:
    """Return what is stalled at the last of (second, reading) pairs of one partition."""
    progress: dict[TP, Progress] = {}
    stalled: list[TP] = []
    for now, reading in readings:
        progress, stalled = observe(progress, {P: reading}, now, stall_seconds)
    return stalled


WAITING = Reading(position=5, end=9, paused=False)


def test_records_that_wait_for_longer_than_allowed_are_a_stall() -> None:
    assert after((0, WAITING), (59, WAITING)) == []
    assert after((0, WAITING), (59, WAITING), (60, WAITING)) == [P]


@pytest.mark.parametrize(
    "between",
    [
        Reading(position=6, end=9, paused=False),
        Reading(position=4, end=9, paused=False),
        Reading(position=5, end=5, paused=False),
        Reading(position=5, end=9, paused=True),
        Reading(position=5, end=None, paused=False),
    ],
    ids=["moved", "sought back", "caught up", "paused", "end unknown"],
)
def test_the_clock_starts_anew_when_a_partition(between: Reading) -> None:
    assert after((0, WAITING), (50, between), (100, WAITING)) == []


def test_a_caught_up_partition_is_never_stalled() -> None:
    idle = Reading(position=9, end=9, paused=False)
    assert after((0, idle), (1000, idle), (1059, WAITING)) == []


def test_partitions_are_judged_alone_and_forgotten_when_they_leave() -> None:
    moving = Reading(position=7, end=9, paused=False)
    progress, _ = observe({}, {P: WAITING, Q: WAITING}, 0, 60)
    progress, stalled = observe(progress, {P: WAITING, Q: moving}, 60, 60)
    assert stalled == [P]
    progress, stalled = observe(progress, {Q: moving}, 61, 60)
    assert set(progress) == {Q}
    progress, stalled = observe(progress, {P: WAITING, Q: moving}, 130, 60)
    assert stalled == [Q]
