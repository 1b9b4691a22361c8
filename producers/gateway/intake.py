"""What a gateway does to a batch of events before Kafka: check, encode, key. Pure: no clock, no connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastavro.schema import fingerprint, to_parsing_canonical_form

from fluvial.producers.fields import fields_of
from fluvial.producers.gateway.json_cells import column_from_json
from fluvial.producers.gateway.privacy import Privacy
from fluvial.producers.rejections import Faults
from fluvial.producers.times import NO_ZONE
from fluvial.records import I64, Column, Doubles, Longs, Mask, RecordColumns, Spans, take
from fluvial.schemas.columns import spans_from_strings
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder

LARGEST_EVENT_BYTES = 900_000
NOTHING_HIDDEN = Privacy(None, (), ())
SAMPLES = {"text": "x", "number": 0.5, "integer": 1, "time": 0, "texts": ["x"], "numbers": [0.5]}


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why event number ``index`` of a batch was not taken; ``kind`` is a word for programs, ``reason`` for people."""

    index: int
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch after the checks: what is to be published, and what was refused.

    ``keys`` and ``values`` (Confluent-framed Avro) have one entry per good event, in the batch's order.
    """

    topic: str
    keys: Spans
    values: Spans
    rejected: tuple[Rejection, ...]

    @property
    def accepted(self) -> int:
        """How many events are good."""
        return len(self.values)


class TopicIntake:
    """One topic's checks. Safe to share between threads.

    ``fingerprint`` is the schema's CRC-64-AVRO as single-object encoding has it (8 bytes, little-endian).
    ``not_empty`` are the fields that may be neither null nor empty (those of the keys of all pipelines).
    """

    def __init__(
        self,
        topic: str,
        schema: Mapping[str, Any],
        *,
        key: str,
        event_time: str,
        not_empty: frozenset[str],
        encoder: Encoder,
        decoder: Decoder,
        max_ahead_ms: int,
        privacy: Privacy = NOTHING_HIDDEN,
    ) -> None:
        self.topic = topic
        self._privacy = privacy
        self.schema_id = encoder.schema_id
        self.fields = fields_of(schema)
        self.event = f"{schema.get('namespace', '')}.{schema['name']}".removeprefix(".")
        self.key = key
        self._time = event_time
        self._not_empty = sorted(not_empty)
        self._encoder = encoder
        self._decoder = decoder
        self._max_ahead_ms = max_ahead_ms
        self._names = frozenset(f.name for f in self.fields)
        canonical = to_parsing_canonical_form(dict(schema))
        self.fingerprint = bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))

    def warm_up(self) -> None:
        """Let the kernels be compiled now (or loaded), and not while a first batch waits."""
        sample = {f.name: SAMPLES.get(f.kind) for f in self.fields}
        values = self.from_objects([sample], 0).values
        self.from_framed(values, 0)

    def from_objects(self, objects: Sequence[Any], now_ms: int, *, prefix: str = "") -> Checked:
        """Check n parsed JSON values, one event each (an `Unreadable` stands for one that was not).

        Times are RFC 3339 texts with a zone, or epoch milliseconds. ``prefix`` is what every key must start with.
        """
        n = len(objects)
        faults = Faults(n)
        events: list[Mapping[str, Any]] = []
        for i, value in enumerate(objects):
            if isinstance(value, dict):
                unknown = value.keys() - self._names
                if unknown:
                    faults.mark(_one(n, i), f"unknown field {', '.join(sorted(map(str, unknown)))}")
                events.append(value)
            else:
                reason = value.reason if isinstance(value, Unreadable) else "not a JSON object"
                faults.mark(_one(n, i), reason)
                events.append({})
        columns = {f.name: column_from_json([e.get(f.name) for e in events], f, faults) for f in self.fields}
        return self.from_columns(columns, now_ms, faults, prefix=prefix)

    def from_columns(
        self, columns: Mapping[str, Column], now_ms: int, faults: Faults | None = None, *, prefix: str = ""
    ) -> Checked:
        """Check n events given as the columns of the topic's schema."""
        n = len(columns[self.key])
        faults = faults or Faults(n)
        self._check(columns, faults, now_ms, prefix)
        good = faults.good
        if not good.all():
            rows = np.flatnonzero(good)
            columns = {name: take(c, rows) for name, c in columns.items()}
        columns = self._privacy.apply(columns, self.fields)
        keys = columns[self.key]
        assert isinstance(keys, Spans)
        return self._sized(keys, self._encoder.encode(columns), _rejections(faults), np.flatnonzero(good))

    def from_framed(self, values: Spans, now_ms: int, *, prefix: str = "") -> Checked:
        """Check n events in Confluent's framing, whatever the writer's schema; the good ones are passed on unchanged,
        unless something of them is to be hidden.

        Raises:
            RegistryUnavailableError: a writer's schema is not known yet and the registry does not answer.
        """
        n = len(values)
        offset = np.arange(n, dtype=np.int64)
        nothing = Spans(values.buffer, np.zeros(n, np.int64), np.full(n, -1, np.int64))
        zeros = np.zeros(n, np.int64)
        events = self._decoder.decode(RecordColumns(self.topic, 0, offset, zeros, nothing, values, zeros, n))
        faults = Faults(n)
        for e in events.errors:
            faults.mark(_one(n, e.row), f"{e.error_type}: {e.message}")
        faults.mark(~events.ok, "null")
        if self._privacy.changes:
            return self.from_columns(events.columns, now_ms, faults, prefix=prefix)
        self._check(events.columns, faults, now_ms, prefix)
        rows = np.flatnonzero(faults.good)
        keys = events.columns[self.key]
        assert isinstance(keys, Spans)
        return self._sized(keys.take(rows), values.take(rows), _rejections(faults), rows)

    def _check(self, columns: Mapping[str, Column], faults: Faults, now_ms: int, prefix: str) -> None:
        for name in self._not_empty:
            column = columns[name]
            if isinstance(column, Spans):
                faults.mark(column.length == 0, f"{name}: empty")
                faults.mark(column.length < 0, f"{name}: missing")
        for name, column in columns.items():
            if isinstance(column, Doubles):
                faults.mark(column.valid & ~np.isfinite(column.values), f"{name}: not a finite number")
        time = columns[self._time]
        assert isinstance(time, Longs)
        ahead = time.values > now_ms + self._max_ahead_ms
        if ahead.any():
            faults.mark(ahead, f"{self._time}: more than {self._max_ahead_ms // 1000} s ahead of the gateway's clock")
        if prefix:
            keys = columns[self.key]
            assert isinstance(keys, Spans)
            faults.mark(~_starts_with(keys, prefix.encode()), f"{self.key}: your key may publish {prefix}… only")

    def _sized(self, keys: Spans, values: Spans, rejected: list[Rejection], rows: I64) -> Checked:
        large = values.length > LARGEST_EVENT_BYTES
        if large.any():
            rejected += [Rejection(int(rows[i]), "too-large", "larger than 900 kB") for i in np.flatnonzero(large)]
            keys, values = keys.take(~large), values.take(~large)
        return Checked(self.topic, keys, values, tuple(sorted(rejected, key=lambda r: r.index)))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands in a batch for an event that could not be parsed."""

    reason: str


def framed(schema_id: int, events: Sequence[bytes]) -> Spans:
    """Return Avro data in Confluent's framing."""
    head = b"\0" + schema_id.to_bytes(4, "big")
    return spans_from_strings([head + e for e in events])


def _one(n: int, i: int) -> Mask:
    mask = np.zeros(n, np.bool_)
    mask[i] = True
    return mask


def _starts_with(keys: Spans, prefix: bytes) -> Mask:
    fits: Mask = keys.length >= len(prefix)
    for i in np.flatnonzero(fits).tolist():
        a = int(keys.start[i])
        fits[i] = keys.buffer[a : a + len(prefix)].tobytes() == prefix
    return fits


def _rejections(faults: Faults) -> list[Rejection]:
    return [
        Rejection(i, "invalid", faults.reason(i).replace(NO_ZONE, "a time without a zone"))
        for i in faults.bad_rows().tolist()
    ]
