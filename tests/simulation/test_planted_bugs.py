"""The checker is checked: every bug that is planted is caught, and the same runs are right without it."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cassandra import ConsistencyLevel

from support.simulated.cassandra import Mood
from support.simulated.checks import Checks
from support.simulated.plan import Plan, plan
from support.simulated.plants import PLANTS
from support.simulated.running import run_plan
from support.simulated.trace import Trace
from support.simulated.world import World

pytestmark = pytest.mark.timeout(600)
#: How many runs that have what it takes may be needed.
MOST_RUNS = 40


def aimed_at(name: str) -> Iterator[Plan]:
    """Yield the first plans that may show a bug."""
    plans = (PLANTS[name].aim(plan(seed)) for seed in itertools.count(1))
    return itertools.islice((p for p in plans if p is not None), MOST_RUNS)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_caught(name: str) -> None:
    for tried, aimed in enumerate(aimed_at(name), 1):
        caught = run_plan(aimed, planted=PLANTS[name].planted).violations
        if caught:
            print(f"{name}: caught in run {tried}, seed {aimed.seed}: {caught[0]}")
            without = run_plan(aimed)
            assert not without.violations, f"also without the bug: {without}"
            return
    pytest.fail(f"{MOST_RUNS} runs did not show it")


class Unrepaired(World):
    """A run in which two of five writes never reach a replica, and no reader repairs them."""

    async def _reader(self) -> None:
        pass

    async def _heal(self) -> None:
        await super()._heal()
        self.cassandra.mood = self.plan.mood


def finished(seed: int, consistency: int) -> tuple[World, Checks]:
    drawn = replace(plan(seed), faults=(), mood=Mood(lost=0.4), corrected_at=None)
    world = Unrepaired(drawn, Trace(keep=False), consistency=consistency)
    world.run()
    assert world.stuck is None
    return world, Checks(world)


def test_sinks_that_write_at_one_are_caught_by_reads_at_quorum_but_not_by_reads_at_one() -> None:
    missed = 0
    for seed in range(1, 13):
        world, checks = finished(seed, ConsistencyLevel.LOCAL_ONE)
        at_quorum = [bool(list(checks.views({where: view}))) for where, view in world.at_quorum.items()]
        at_one = [bool(list(checks.views({where: view}))) for where, view in world.at_one.items()]
        missed += any(at_quorum) and not all(at_one)
    assert missed > 0


def test_reads_at_one_raise_false_alarms_where_reads_at_quorum_are_right() -> None:
    alarms = 0
    for seed in range(1, 7):
        world, checks = finished(seed, ConsistencyLevel.LOCAL_QUORUM)
        assert not list(checks.views(world.at_quorum))
        alarms += bool(list(checks.views(world.at_one)))
    assert alarms > 0
