"""Running a seed: quietly, and again with its story when something was wrong."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from support.simulated.checks import Violation, violations
from support.simulated.plan import Plan, plan
from support.simulated.trace import Trace
from support.simulated.world import World

SHOWN = 8
Planted = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to: its violations, and the digest that a repetition has too."""

    plan: Plan
    violations: list[Violation]
    digest: str
    story: list[str]

    def __str__(self) -> str:
        n = len(self.violations)
        lines = [
            f"seed {self.plan.seed}: {n} violation{'s' * (n != 1)}; again: pytest tests/simulation --seed {self.plan.seed}",
            f"  {self.plan}",
            *(f"  {v}" for v in self.violations[:SHOWN]),
            *([f"  … and {n - SHOWN} more"] if n > SHOWN else []),
            *self.story,
        ]
        return "\n".join(lines)


def run_seed(seed: int, *, story: bool = False, planted: Planted = nullcontext) -> Outcome:
    """Run a seed, with a bug planted in the product if one is given."""
    return run_plan(plan(seed), story=story, planted=planted)


def run_plan(drawn: Plan, *, story: bool = False, planted: Planted = nullcontext) -> Outcome:
    """Run a plan that was drawn, or changed after it was."""
    trace = Trace(keep=story)
    world = World(drawn, trace)
    with planted():
        world.run()
    digest = trace.digest
    return Outcome(drawn, violations(world), digest, trace.lines)
