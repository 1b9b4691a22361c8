"""The record of trials: a line for each in ``build/faults.ndjson``, and a table of the latest run in the docs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.faults.trial import Outcome

ROOT = Path(__file__).parents[3]
RECORD = ROOT / "build" / "faults.ndjson"
PAGE = ROOT / "docs" / "reference" / "faults-report.md"
HEAD = """# Faults survived: the latest report

What `make faults` measured. Each trial publishes a load drawn from its seed (readings and posts out of order, some twice,
some late, some poison) to topics of its own, runs real workers and sinks on real servers, does them harm, and compares:

- every acknowledged record is in the log, each key's in their order (I1, I5);
- every cell of every table is the oracle's, write timestamps too (I2);
- no version went back, and no row disappeared, for a reader that polled at quorum all the while (I3);
- the ledger, the late events and the dead letters are the oracle's (I4);
- nothing died that was not killed, and what was in the log at the moment of a death was handled within 30 s (I6);
- no process took more than 1.2 GB (I7).

"""


def append(outcome: Outcome, record: Path = RECORD) -> None:
    """Add a trial to the record."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a") as out:
        out.write(json.dumps({"at": _now(), **asdict(outcome)}) + "\n")


def read(record: Path = RECORD) -> list[dict[str, Any]]:
    """Return all trials of the record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def page(trials: Sequence[dict[str, Any]]) -> str:
    """Return the report as Markdown."""
    rows: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for t in trials:
        rows.setdefault((t["row"], t["title"]), []).append(t)
    lines = [
        "| # | Fault | Trials | Faults | Events | Rows | Violations | Recoveries | p50 s | p99 s | max s | Peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row, title, found) for (row, title), found in sorted(rows.items())]
    lines.append(_line("", "**all**", list(trials)))
    failed = [t for t in trials if t["violations"]]
    ended = "None of them violated an invariant." if not failed else "Violations, by seed:\n\n" + "\n".join(
        f"- row {t['row']}, seed {t['seed']}: {v}" for t in failed for v in t["violations"]
    )  # fmt: skip
    return f"{HEAD}{_where()}\n\n" + "\n".join(lines) + f"\n\n{ended}\n"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _line(row: int | str, title: str, trials: Sequence[dict[str, Any]]) -> str:
    recoveries = [r for t in trials for r in t["recoveries"]]
    times = [f"{percentile(recoveries, q):.1f}" for q in (0.5, 0.99, 1.0)] if recoveries else ["–"] * 3
    cells = (
        row, title, len(trials), sum(len(t["faults"]) for t in trials), f"{sum(t['events'] for t in trials):,}",
        f"{sum(t['rows'] for t in trials):,}", sum(len(t["violations"]) for t in trials), len(recoveries), *times,
        f"{max((t['peak_mb'] for t in trials), default=0):.0f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _where() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_now()[:10]}, {platform.system()} on {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, servers and "
        f"clients on the same machine, load average at the end {os.getloadavg()[2]:.0f}."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
