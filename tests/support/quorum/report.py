"""Trials of brokers and nodes in the report that all trials share: one JSON line each in ``build/faults.ndjson``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPORT = Path(__file__).parents[3] / "build" / "faults.ndjson"


@dataclass
class Seen:
    """What came of a trial; ``row`` is its row in the fault matrix, ``seen`` what clients saw, by name (times in s)."""

    row: int
    title: str
    seed: int
    events: int = 0
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    seconds: float = 0.0
    seen: Mapping[str, object] = field(default_factory=dict)

    def write(self) -> None:
        """Append it to the report, and fail the test when an invariant was violated."""
        REPORT.parent.mkdir(exist_ok=True)
        with REPORT.open("a") as f:
            f.write(json.dumps(asdict(self), ensure_ascii=False) + "\n")
        print(json.dumps(self.seen, ensure_ascii=False))
        assert not self.violations, "\n".join(self.violations)
