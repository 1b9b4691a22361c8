"""Trials of brokers and nodes, in the record of all trials: ``build/faults.ndjson``."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.faults import report
from support.faults.trial import Outcome

# What the trials of brokers and nodes draw from: `make faults-of-servers SEED=17`.
SEED = int(os.environ.get("SEED") or 1)


@dataclass
class Seen(Outcome):
    """What came of a trial; ``seen`` is what clients saw, by name (times in seconds)."""

    seen: Mapping[str, object] = field(default_factory=dict)

    def record(self) -> None:
        """Add it to the record."""
        report.append(self)
        print(f"row {self.row}, {self.title}: {json.dumps(self.seen, ensure_ascii=False)}", flush=True)

    def write(self) -> None:
        """Add it to the record, and fail the test when an invariant was violated."""
        self.record()
        assert not self.violations, "\n".join(self.violations)
