"""``make faults``: trials of every row of the fault matrix on servers of their own, a record and a report.

make faults                      one trial of each row
make faults TRIALS=20            twenty of each
make faults MINUTES=60           as many rounds as an hour allows
make faults ROW=4 SEED=17        that one trial, again
"""

import argparse
import itertools
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fluvial.cluster import ClusterSpec, LocalCluster
from support.faults import report
from support.faults.rows import ROWS
from support.faults.trial import Outcome, run_trial


def main() -> int:
    """Run the trials and return the exit status: 1 when an invariant was violated."""
    asked = _arguments()
    logging.basicConfig(level=logging.ERROR)
    # Whatever ends the run, its servers and processes end with it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    rows = asked.row.split(",") if asked.row else list(ROWS)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="fluvial-faults-") as folder, _cluster(Path(folder)) as cluster:
        for row, seed in _trials(rows, asked):
            outcome = run_trial(ROWS[row], seed, cluster.settings, report.RECORD.parent / "faults", cluster)
            report.append(outcome)
            outcomes.append(outcome)
            _show(row, outcome)
    if not asked.row:
        report.PAGE.write_text(report.page(report.read()))
    return 1 if any(o.violations for o in outcomes) else 0


def _trials(rows: list[str], asked: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield row and seed, round by round, until there are as many as were asked for or the time is over."""
    ends = time.monotonic() + asked.minutes * 60 if asked.minutes else None
    seeds = random.Random()
    for n in itertools.count():
        for row in rows:
            if ends is not None and time.monotonic() > ends:
                return
            yield row, seeds.randrange(1, 10**6) if asked.seed is None else asked.seed + n
        if ends is None and n + 1 >= asked.trials:
            return


@contextmanager
def _cluster(folder: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(folder / "cluster", ClusterSpec(ports="any", proxied=True))
    cluster.start(lambda step: print(step.subject, step.message, file=sys.stderr))
    try:
        yield cluster
    finally:
        cluster.wipe()


def _show(row: str, o: Outcome) -> None:
    worst = f", recovered in at most {max(o.recoveries):.1f} s" if o.recoveries else ""
    print(f"row {row} seed {o.seed}: {o.events:,} events, {len(o.faults)} faults{worst}, {o.seconds:.0f} s", flush=True)
    for violation in o.violations:
        print(f"  {violation}", flush=True)
    if o.violations:
        print(f"  again: make faults ROW={row} SEED={o.seed}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", default="", help="rows, comma separated; all when left out")
    parser.add_argument("--seed", type=int, help="the first seed; random when left out")
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
