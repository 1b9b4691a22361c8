"""What provisioning found: one finding per topic, subject, keyspace, migration and table."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["topic", "subject", "keyspace", "migration", "table"]
State = Literal["created", "verified", "differs"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that is not as declared, and how to mend it; nothing was altered."""

    setting: str
    found: str
    declared: str
    hint: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, or done, about one thing."""

    kind: Kind
    name: str
    state: State
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of provisioning."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as declared now."""
        return all(f.state != "differs" for f in self.findings)

    def count(self, state: State) -> int:
        """Return how many things are in a state."""
        return sum(f.state == state for f in self.findings)


def verdict(kind: Kind, name: str, differences: list[Difference]) -> Finding:
    """Return the finding about something that existed."""
    return Finding(kind, name, "differs" if differences else "verified", tuple(differences))
