"""What a pipeline is, declared: source topic, key, window, aggregates, table. Frozen data, no behaviour but checks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fluvial.errors import PipelineError

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# The identity of rekeyed records whose only one is where they came from: (upstream_partition, upstream_offset, upstream_index).
UPSTREAM_IDENTITY = ("upstream_offset",)
AGGREGATES = ("count", "sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99", "distinct", "top")


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Half-open windows ``[n·size, (n + 1)·size)``, aligned to the epoch."""

    size_ms: int


@dataclass(frozen=True, slots=True)
class Hopping:
    """Half-open windows ``[n·hop, n·hop + size)``, aligned to the epoch; ``hop_ms`` divides ``size_ms``."""

    size_ms: int
    hop_ms: int


@dataclass(frozen=True, slots=True)
class Session:
    """A run of events of one key, none further than ``gap_ms`` from its neighbour; ends ``gap_ms`` after the last one."""

    gap_ms: int


Window = Tumbling | Hopping | Session


@dataclass(frozen=True, slots=True)
class Table:
    """The Cassandra table (and result topic ``fluvial.<name>``) of a pipeline.

    The partition key is ``partition_key`` and then ``bucket`` — the start of the day or month (UTC) that holds
    ``window_start``, as a CQL date; rows are clustered by ``window_start`` descending, then ``clustering``.
    ``retention_days`` counts from the window's end; 0 keeps rows for ever.
    """

    name: str
    partition_key: tuple[str, ...]
    bucket: Literal["day", "month"] = "day"
    clustering: tuple[str, ...] = ()
    retention_days: int = 0


@dataclass(frozen=True, slots=True)
class Rekey:
    """Copies of a topic's events under another key: ``source`` → ``topic``, in the log like everything else.

    ``source`` is an event topic, or a pipeline's result topic: then its final rows are forwarded as they are made.
    Every ``announce_ms`` of event time, each upstream partition announces its time to every partition of ``topic``.
    ``fields`` are copied from the source event; ``explode`` names a list field of which each distinct item makes one
    record, in field ``explode_as``. Records carry ``upstream_partition``, ``upstream_offset`` and ``upstream_index``.
    ``event`` is the Avro name of the rekeyed record, ``key`` the fields that its Kafka key is made of.
    """

    source: str
    topic: str
    event: str
    fields: tuple[str, ...]
    key: tuple[str, ...]
    explode: str | None = None
    explode_as: str | None = None
    announce_ms: int = 10 * SECOND_MS


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One aggregation: events of ``source`` by ``key`` and window to ``table``.

    ``time``: "key" lets each key's own events close its windows, "partition" the partition's. ``identity`` are the fields
    (beside the key and event time) by which a repeat is known; the first of them that is not null decides.
    ``value`` is the column of the numeric aggregates, ``distinct`` the one whose different values are counted (HLL),
    ``top`` the one whose ``top_k`` greatest sums of ``value`` are kept. ``upstream`` is how ``source`` is made, when it is
    a rekeyed topic.
    """

    source: str
    event: str
    key: tuple[str, ...]
    window: Window
    aggregates: tuple[str, ...]
    table: Table
    time: Literal["key", "partition"] = "key"
    event_time: str = "event_time"
    lateness_ms: int = MINUTE_MS
    idle_timeout_ms: int = DAY_MS
    early_ms: int = 10 * SECOND_MS
    identity: tuple[str, ...] = ()
    identity_has_time: bool = True
    value: str | None = None
    distinct: str | None = None
    top: str | None = None
    top_k: int = 20
    upstream: tuple[Rekey, ...] = ()

    @property
    def name(self) -> str:
        """The pipeline's name: its table's."""
        return self.table.name

    @property
    def result_topic(self) -> str:
        """The topic of its rows."""
        return f"fluvial.{self.table.name}"

    def __post_init__(self) -> None:
        """Check the declaration against itself.

        Raises:
            PipelineError: naming the pipeline and the contradiction.
        """

        def refuse(what: str) -> None:
            raise PipelineError(f"pipeline {self.table.name}: {what}", hint="correct its declaration")

        unknown = set(self.aggregates) - set(AGGREGATES)
        if unknown:
            refuse(f"unknown aggregates {sorted(unknown)}; known are {', '.join(AGGREGATES)}")
        if not self.key:
            refuse("no key")
        w = self.window
        span = w.gap_ms if isinstance(w, Session) else w.size_ms
        if span <= 0 or self.lateness_ms < 0:
            refuse("window sizes must be positive and lateness not negative")
        if isinstance(w, Session) and (self.early_ms or self.top):
            refuse("a session's start can move until it is final: it has no early rows (early_ms=0) and no top")
        if isinstance(w, Hopping) and (w.hop_ms <= 0 or w.size_ms % w.hop_ms):
            refuse(f"the hop ({w.hop_ms} ms) must divide the size ({w.size_ms} ms)")
        if self.idle_timeout_ms < span + self.lateness_ms:
            refuse("idle_timeout_ms must be at least the window's size plus the lateness")
        if {"sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99"} & set(
            self.aggregates
        ) and self.value is None:
            refuse("numeric aggregates need a value field")
        if ("distinct" in self.aggregates) != (self.distinct is not None):
            refuse("the distinct aggregate and the distinct field go together")
        if ("top" in self.aggregates) != (self.top is not None):
            refuse("the top aggregate and the top field go together")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What one module declares: pipelines, and where the Avro files of their events and the CQL of their tables are."""

    pipelines: tuple[Pipeline, ...]
    schema_dir: Path = field(default=Path(__file__).parent)
