"""Whether dead letters would pass now: decoded and validated by today's schemas and settings, as a worker would."""

import time
from collections.abc import Sequence

import numpy as np

from fluvial.errors import PipelineError, SchemaError
from fluvial.records import RecordColumns, Spans
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.registry import Registry
from fluvial.services.dead_letter_topics import TopicFacts
from fluvial.services.dead_letters import Letter
from fluvial.services.partitions import partition_counts
from fluvial.settings import Settings
from fluvial.stream_apps.plan import TopicPlan, plan_topics
from fluvial.stream_apps.validation import sort_records


class Check:
    """Decodes and validates dead letters anew. What nothing declared reads cannot be judged."""

    def __init__(self, settings: Settings, catalog: Catalog, registry: Registry) -> None:
        self._facts = TopicFacts(settings.kafka)
        self._max_ahead_ms = int(settings.worker.max_ahead_seconds * 1000)
        self._catalog = catalog
        self._registry = registry
        self._partitions: dict[str, int] = {}
        self._kafka = settings.kafka
        self._plans: dict[str, TopicPlan] = plan_topics(catalog.pipelines)
        self._decoders: dict[str, Decoder | None] = {}

    def knows(self, topic: str) -> bool:
        """Whether it can tell: something that is declared reads the topic."""
        return self._decoder(topic) is not None

    def failures(self, letters: Sequence[Letter]) -> list[str | None]:
        """Return for each letter (all of one topic) why it would fail again; None when it would pass, or nobody can tell.

        Raises:
            RegistryUnavailableError: the registry does not answer.
        """
        decoder = self._decoder(letters[0].place.topic)
        reasons: list[str | None] = [
            "its payload was too large to be kept here" if x.left_out else None for x in letters
        ]
        if decoder is None:
            return reasons
        now, facts = time.time_ns() // 1_000_000, self._facts.of(letters[0].place.topic)
        records = records_of(letters, [facts.timestamp(x.place.timestamp, now) for x in letters])
        events = decoder.decode(records)
        errors = list(events.errors)
        plan = self._plans.get(records.topic)
        if plan is not None:
            upstream = self._partition_count(plan.upstream) if plan.upstream else 0
            *_, errors = sort_records(
                records, events, plan.pipelines, event_time=plan.event_time,
                max_ahead_ms=self._max_ahead_ms, upstream_partitions=upstream,
            )  # fmt: skip
        for e in errors:
            reasons[e.row] = reasons[e.row] or f"{e.stage}, {e.error_type}: {e.message}"
        return reasons

    def _partition_count(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions |= partition_counts(self._kafka, {topic})
        return self._partitions[topic]

    def _decoder(self, topic: str) -> Decoder | None:
        if topic not in self._decoders:
            try:
                self._decoders[topic] = Decoder(self._catalog.schema_of(topic), self._registry)
            except (SchemaError, PipelineError):
                self._decoders[topic] = None
        return self._decoders[topic]


def records_of(letters: Sequence[Letter], timestamps: Sequence[int]) -> RecordColumns:
    """Return the records that letters of one topic are of, as the transport would fetch them."""
    text = bytearray()

    def put(part: bytes | None) -> tuple[int, int]:
        start = len(text)
        text.extend(part or b"")
        return start, -1 if part is None else len(part)

    keys = [put(x.key) for x in letters]
    values = [put(x.payload) for x in letters]
    headers = [put(_header_section(x.headers))[0] for x in letters]
    buffer = np.frombuffer(bytes(text) + b"\0", np.uint8)
    first = letters[0].place

    def spans(parts: list[tuple[int, int]]) -> Spans:
        start, length = np.array(parts, np.int64).reshape(-1, 2).T
        return Spans(buffer, np.ascontiguousarray(start), np.ascontiguousarray(length))

    offsets = np.array([x.place.offset for x in letters], np.int64)
    stamps = np.array(timestamps, np.int64)
    return RecordColumns(
        first.topic, first.partition, offsets, stamps, spans(keys), spans(values), np.array(headers, np.int64),
        int(offsets[-1]) + 1,
    )  # fmt: skip


def _header_section(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    out = bytearray(_varint(len(headers)))
    for name, value in headers:
        text = name.encode()
        out += _varint(len(text)) + text + _varint(-1 if value is None else len(value)) + (value or b"")
    return bytes(out)


def _varint(n: int) -> bytes:
    z = 2 * n if n >= 0 else -2 * n - 1
    out = bytearray()
    while z >= 0x80:
        out.append(z & 0x7F | 0x80)
        z >>= 7
    out.append(z)
    return bytes(out)
