"""A few short trials of the fault matrix; `make faults` runs all rows, longer and often.

A trial that fails says with which seed; FLUVIAL_FAULTS_SEED=17 runs these with another one.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fluvial.settings import Settings
from support.faults.rows import ROWS
from support.faults.trial import run_trial

SEED = int(os.environ.get("FLUVIAL_FAULTS_SEED", "1"))
SHORT = {"events": 2_000, "seconds": 4.0}

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.mark.parametrize("row", ["1", "2", "3"])
def test_everything_holds_after_the_faults_of_row(row: str, cluster_settings: Settings, tmp_path: Path) -> None:
    scenario = ROWS[row]
    # How soon it recovers is measured by `make faults`, on a machine that does nothing else.
    posts = 1.0 if row == "1" else 0.0
    shape = replace(scenario.shape, **SHORT)
    short = replace(scenario, shape=shape, partitions=2, posts=posts, recovery_seconds=120.0)
    outcome = run_trial(short, SEED, cluster_settings, tmp_path)
    assert outcome.events > 1_000
    assert outcome.faults
    assert outcome.violations == [], f"seed {SEED}: make faults ROW={row} SEED={SEED}"
