"""The pipelines of one source topic, recomputed from its log by the oracle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluvial.errors import AuditError
from fluvial.oracle.from_kafka import RegistryAwayError, decode_message, parse
from fluvial.oracle.recompute import Recompute, Span, every_key
from fluvial.oracle.sample import Sample, Values
from fluvial.schemas.declarations import Pipeline, Session
from fluvial.services.audit_log import LogReader
from fluvial.services.meter import Meter

TOLD_RECORDS = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows: all, or those of ``sample`` keys chosen by ``seed``; of windows in the span."""

    sample: int | None = None
    seed: int = 0
    span: Span = field(default_factory=Span)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A pipeline recomputed: by partition, for the keys of a sample (None: all).

    ``whole_from`` says, by partition whose log has lost its beginning, from which window start (epoch ms) on all events
    are surely there.
    """

    pipeline: Pipeline
    parts: tuple[Recompute, ...]
    sample: Sample | None
    whole_from: Mapping[int, int]


@dataclass(slots=True)
class SourceRecompute:
    """Recomputes several pipelines of one topic together: every record is read and decoded once.

    ``replayed`` are, by pipeline, the ranges whose late events are kept; ``beside`` all pipelines that the worker runs on
    the topic.
    """

    topic: str
    schema: Mapping[str, Any]
    pipelines: Sequence[Pipeline]
    upstream_partitions: int
    max_ahead_ms: int
    generation: int
    asked: Asked
    replayed: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    beside: Sequence[Pipeline] = ()
    samples: dict[str, Sample] = field(default_factory=dict)
    parts: dict[str, list[Recompute]] = field(default_factory=dict)
    first_ms: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with no partition."""
        for p in self.pipelines:
            self.parts[p.name] = []
            if self.asked.sample is not None:
                self.samples[p.name] = Sample(self.asked.sample, self.asked.seed, self._forgetter(p.name))

    def read(self, log: LogReader, partition: int, begin: int, covered: int, meter: Meter) -> None:
        """Handle a partition's records before ``covered``.

        Raises:
            AuditError: Kafka or the registry does not answer.
        """
        reader = parse(self.schema)
        parts = [self._part(p, partition) for p in self.pipelines]
        n = 0
        try:
            for message in log.messages(self.topic, partition, begin, covered):
                record = decode_message(message, log.schemas, reader)
                if not n and begin:
                    self.first_ms[partition] = record.timestamp
                for part in parts:
                    part.handle(record)
                n += 1
                if not n % TOLD_RECORDS:
                    meter.add(TOLD_RECORDS)
        except RegistryAwayError as e:
            raise AuditError(str(e), hint="is the registry up? `fluvial status`") from None
        meter.add(n % TOLD_RECORDS)

    def recomputed(self) -> list[Recomputed]:
        """Return what came of it."""
        return [
            Recomputed(p, tuple(self.parts[p.name]), self.samples.get(p.name), self._whole_from(p))
            for p in self.pipelines
        ]

    def _whole_from(self, p: Pipeline) -> dict[int, int]:
        # No event before the first one kept is later than its timestamp plus what may be ahead, nor is what they closed.
        size = p.window.gap_ms if isinstance(p.window, Session) else p.window.size_ms
        return {partition: ms + self.max_ahead_ms + 2 * size for partition, ms in self.first_ms.items()}

    def _part(self, p: Pipeline, partition: int) -> Recompute:
        part = Recompute(
            p,
            partition=partition,
            upstream_partitions=self.upstream_partitions,
            max_ahead_ms=self.max_ahead_ms,
            generation=self.generation,
            wants=self.samples[p.name].admits if p.name in self.samples else every_key,
            span=self.asked.span,
            replayed=self.replayed.get(p.name, ()),
            beside=[other for other in self.beside if other.name != p.name],
        )
        self.parts[p.name].append(part)
        return part

    def _forgetter(self, name: str) -> Callable[[Values], None]:
        def forget(values: Values) -> None:
            for part in self.parts[name]:
                part.forget(values)

        return forget
