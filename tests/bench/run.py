"""Measure fluvial and its peers on this machine, in one run: ``python tests/bench/run.py``, or ``make bench``.

Each measured thing is a process (or two) of its own that catches up on a topic that is already full. Its wall time, its
CPU time and its peak memory are taken from outside, in the same way for all, between the moment when it has handled the
first fifth of its events and the moment when it has handled them all. That first fifth is the warm-up of all of them
alike: starting, joining the group, the JVM's compilers, loading compiled kernels.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import report
from bench import Bench, Result
from cases import CASES
from quix_environment import UnavailableError

EVENTS = 5_000_000
QUICK_EVENTS = 1_000_000
REPEATS = 3
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure, print the table and the bars, write ``build/bench.json``; 1 when something could not be measured."""
    options = _options()
    names = options.only.split(",") if options.only else list(CASES)
    if unknown := [n for n in names if n not in CASES]:
        _say(f"unknown name {unknown[0]}; known are {', '.join(CASES)}")
        return 2
    events = options.events or (QUICK_EVENTS if options.quick else EVENTS)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    _say(_machine())
    bench = Bench(build, events, 1 if options.quick else REPEATS, _say)
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    failed = False
    try:
        for name in names:
            begun = time.monotonic()
            try:
                results[name] = r = CASES[name](bench)
            except UnavailableError as e:
                skipped[name] = str(e)
                _say(f"{name}: skipped: {e}")
            except Exception as e:
                skipped[name], failed = f"{type(e).__name__}: {e}", True
                _say(f"{name}: failed: {type(e).__name__}: {e}")
            else:
                _say(f"{name}: {r.events_per_second:,.0f} /s ({time.monotonic() - begun:.0f} s)")
    finally:
        bench.close()
    counted = "the first fifth of each run is warm-up, counted only where it says so"
    print(f"\n{_machine()}\n{events:,} events in a full topic; {counted}\n")
    print(report.table(list(results.values()), results.get(report.BASE)))
    print(f"\n{report.bars(results)}")
    target = build / "bench.json"
    target.write_text(json.dumps(report.as_json(results, skipped), indent=1) + "\n")
    print(f"\nwrote {target.relative_to(ROOT)}")
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAME,NAME", help=f"measure these alone: {', '.join(CASES)}")
    parser.add_argument("--events", type=int, help=f"events in a full topic (default {EVENTS:,})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events, each case once: a trial")
    return parser.parse_args()


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}, load {load}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
