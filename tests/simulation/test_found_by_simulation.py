"""What the simulation has found in the product, as plans that show it at once."""

from dataclasses import replace

from support.simulated.cassandra import Mood
from support.simulated.kafka import Weather
from support.simulated.plan import Fault, Plan, plan
from support.simulated.running import run_plan


def calm(seed: int, *faults: Fault) -> Plan:
    """Return a seed's plan with these faults and no others."""
    return replace(
        plan(seed), faults=faults, failpoint=0.0, weather=Weather(), mood=Mood(), corrected_at=None, static=False
    )


def test_a_sink_that_gave_up_its_batches_in_a_rebalance_goes_on_when_cassandra_is_back() -> None:
    for seed in range(1, 5):
        away, leaving = Fault(10.0, "node down", "node1 node2", 12.0), Fault(14.0, "stop", "sink1", 5.0)
        outcome = run_plan(calm(seed, away, leaving), story=True)
        assert not outcome.violations, str(outcome)
