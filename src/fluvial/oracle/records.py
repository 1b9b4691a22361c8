"""What the oracle reads and what it answers: decoded records of one partition in, rows and counts out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["event", "tick", "keyed_tick", "bad"]
Event = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a partition, decoded.

    ``timestamp`` is the broker's (epoch ms), ``key`` the record key, ``event`` an event's fields (times as epoch ms),
    ``time`` a tick's instant T, ``upstream`` the partition that a rekeyed topic's tick speaks for.
    """

    offset: int
    timestamp: int
    kind: Kind
    key: bytes | None = None
    event: Event | None = None
    time: int | None = None
    upstream: int | None = None


@dataclass(frozen=True, slots=True)
class Late:
    """An event that came after its windows were final: C − t is ``late_by_ms``."""

    offset: int
    event: Event
    late_by_ms: int


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that was set aside and touched nothing, and why: ``bad``, ``invalid``, ``ancient`` or ``ahead``."""

    offset: int
    reason: Literal["bad", "invalid", "ancient", "ahead"]


@dataclass(slots=True)
class Ledger:
    """How many records there were of each fate; `adds_up` is the contract's equation."""

    records: int = 0
    ticks: int = 0
    aggregated: int = 0
    duplicates: int = 0
    late: int = 0
    dead_lettered: int = 0

    def adds_up(self) -> bool:
        """Return whether every record has exactly one fate."""
        return self.records == self.ticks + self.aggregated + self.duplicates + self.late + self.dead_lettered


@dataclass(slots=True)
class OracleResult:
    """Everything that follows from a prefix of one partition.

    ``rows`` are in the order they were written, early ones too; each has every column of the result row: the key
    fields, window_start, window_end, the aggregates, duplicates, final, generation, source_partition, source_offset.
    """

    rows: list[Row] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
