"""Reading checkpoints: once through the topic for what there is, then only what the newest ones need.

No more is held than the arrays that are returned and some megabytes of what was fetched.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fluvial.errors import CheckpointError
from fluvial.settings import KafkaSettings
from fluvial.stream_apps.checkpoint_format import (
    Manifest,
    StoredBlock,
    digest,
    empty_array,
    unpack_block,
    unpack_manifest,
)
from fluvial.transport.connection import librdkafka_config

log = logging.getLogger(__name__)

READ_TIMEOUT_SECONDS = 60.0
MESSAGES_AT_ONCE = 100
_MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class Place:
    """Which state a checkpoint is of: a partition of a source topic under a generation."""

    topic: str
    partition: int
    generation: int

    @property
    def prefix(self) -> str:
        """What its records' keys start with."""
        return f"{self.topic}|{self.partition}|{self.generation}|"

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def chunk_key(place: Place, writer: str, number: int) -> bytes:
    """Return the key of a chunk."""
    return f"{place.prefix}{writer}|{number}".encode()


def manifest_key(place: Place, writer: str, slot: int) -> bytes:
    """Return the key of a manifest."""
    return f"{place.prefix}{writer}|{_MANIFEST}{slot}".encode()


@dataclass(frozen=True, slots=True)
class Listed:
    """A manifest that was found, and whose."""

    key: bytes
    writer: str
    manifest: Manifest

    def keys(self, place: Place) -> dict[bytes, int]:
        """Return its chunks' keys, and their numbers."""
        return {chunk_key(place, self.writer, n): n for n in self.manifest.chunks()}


@dataclass(slots=True)
class Found:
    """What the topic has of a place: every key that is not deleted with its newest offset, and the manifests among them."""

    place: Place
    keys: dict[bytes, int] = field(default_factory=dict)
    manifests: dict[bytes, Listed] = field(default_factory=dict)

    def complete(self) -> list[Listed]:
        """Return the manifests of which every chunk is there, the newest first."""
        there = [m for m in self.manifests.values() if m.keys(self.place).keys() <= self.keys.keys()]
        return sorted(there, key=lambda m: m.manifest.next_offset, reverse=True)

    def take(self, writer: str, what: str, record: "StoredRecord") -> None:
        """Note a record."""
        key = record.key
        self.manifests.pop(key, None)
        if record.value is None:
            self.keys.pop(key, None)
            return
        self.keys[key] = record.offset
        if what.startswith(_MANIFEST):
            try:
                self.manifests[key] = Listed(key, writer, unpack_manifest(record.value))
            except CheckpointError as e:
                log.warning("%s: %s", self.place, e)


class StoredRecord(NamedTuple):
    """A record of the checkpoints' topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None


# Yields the records of each partition from an offset through another one (None: through the end).
Reads = Callable[[Mapping[int, tuple[int, int | None]]], Iterator[StoredRecord]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A snapshot that was read, and the keys of everything that it consists of."""

    snapshot: dict[str, Any]
    keys: frozenset[bytes]


def scan(read: Reads, at: Mapping[Place, int]) -> dict[Place, Found]:
    """Return what the topic has of each place; ``at`` tells the topic's partition of each. Blocking.

    Raises:
        CheckpointError: the topic cannot be read.
    """
    found = {place: Found(place) for place in at}
    by_prefix = {place.prefix: found[place] for place in at}
    for record in read(dict.fromkeys(at.values(), (0, None))):
        head, _, what = record.key.decode(errors="replace").rpartition("|")
        prefix, _, writer = head.rpartition("|")
        here = by_prefix.get(f"{prefix}|")
        if here is not None:
            here.take(writer, what, record)
    return found


def read_snapshots(read: Reads, at: Mapping[Place, int], found: Mapping[Place, Found]) -> dict[Place, Chosen]:
    """Return the newest snapshot of each place that is complete and undamaged. Blocking.

    Raises:
        CheckpointError: the topic cannot be read.
    """
    left = {place: f.complete() for place, f in found.items()}
    done: dict[Place, Chosen] = {}
    for place, f in found.items():
        for m in f.manifests.values():
            if m not in left[place]:
                log.warning("%s: a checkpoint at %d lacks chunks", place, m.manifest.next_offset)
    while any(left.values()):
        trying = {place: _Assembly(place, listed.pop(0)) for place, listed in left.items() if listed}
        _fill(read, at, found, list(trying.values()))
        for place, a in trying.items():
            error = a.error or (None if a.is_complete else "it lacks chunks")
            if error is None:
                done[place] = Chosen(a.snapshot(), frozenset(a.listed.keys(place)) | {a.listed.key})
                left[place] = []
            else:
                log.warning("%s: the checkpoint at %d: %s", place, a.listed.manifest.next_offset, error)
    return done


class _Assembly:
    """A snapshot that is being put together from chunks."""

    def __init__(self, place: Place, listed: Listed) -> None:
        self.place = place
        self.listed = listed
        self.error: str | None = None
        self.arrays: dict[str, dict[str, Any]] = {}
        self._blocks: dict[int, tuple[StoredBlock, Any, bool]] = {}
        self._pieces: dict[int, bytes] = {}
        try:
            for component, arrays in listed.manifest.arrays.items():
                self.arrays[component] = {name: empty_array(stored) for name, stored in arrays.items()}
                for name, stored in arrays.items():
                    row = 0
                    for b in stored.blocks:
                        out = self.arrays[component][name][row : row + b.rows]
                        self._blocks |= dict.fromkeys(b.chunks, (b, out, stored.shuffled))
                        row += b.rows
        except CheckpointError as e:
            self.error = str(e)

    @property
    def is_complete(self) -> bool:
        return not self._blocks

    def take(self, number: int, value: bytes) -> None:
        if self.error is not None or number not in self._blocks:
            return
        block, out, shuffled = self._blocks[number]
        self._pieces[number] = value
        if any(n not in self._pieces for n in block.chunks):
            return
        pieces = [self._pieces.pop(n) for n in block.chunks]
        for n in block.chunks:
            del self._blocks[n]
        try:
            if digest(pieces) != block.digest:
                raise CheckpointError("a block is damaged: its digest differs", hint="an older one or the log is used")
            unpack_block(b"".join(pieces), out, shuffled)
        except CheckpointError as e:
            self.error = str(e)

    def snapshot(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(self.listed.manifest.values))
        for name, component in values["components"].items():
            component["arrays"] = self.arrays[name]
        return values


def _fill(read: Reads, at: Mapping[Place, int], found: Mapping[Place, Found], trying: list[_Assembly]) -> None:
    wanted: dict[bytes, tuple[_Assembly, int, int]] = {}
    spans: dict[int, tuple[int, int]] = {}
    for a in trying:
        for key, number in a.listed.keys(a.place).items():
            offset, partition = found[a.place].keys[key], at[a.place]
            wanted[key] = (a, number, offset)
            low, high = spans.get(partition, (offset, offset))
            spans[partition] = (min(low, offset), max(high, offset))
    for record in read(spans):
        target = wanted.get(record.key)
        if target is not None and record.value is not None and record.offset == target[2]:
            target[0].take(target[1], record.value)


def read_topic(kafka: KafkaSettings, topic: str, spans: Mapping[int, tuple[int, int | None]]) -> Iterator[StoredRecord]:
    """Yield the records of some partitions, each from an offset through another one (None: through the end). Blocking.

    Raises:
        CheckpointError: the topic cannot be read.
    """
    if not spans:
        return
    config = librdkafka_config(kafka) | {
        "group.id": f"{topic}-reader", "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "enable.partition.eof": True, "check.crcs": True, "fetch.message.max.bytes": 8 << 20,
        "queued.max.messages.kbytes": 32 << 10, "fetch.wait.max.ms": 50,
    }  # fmt: skip
    consumer = Consumer(config)
    try:
        consumer.assign([TopicPartition(topic, p, first) for p, (first, _) in spans.items()])
        going = set(spans)
        deadline = time.monotonic() + READ_TIMEOUT_SECONDS
        while going:
            messages = consumer.consume(MESSAGES_AT_ONCE, timeout=0.1)
            if messages:
                deadline = time.monotonic() + READ_TIMEOUT_SECONDS
            elif time.monotonic() > deadline:
                raise CheckpointError(
                    f"{topic} did not answer for {READ_TIMEOUT_SECONDS:.0f} s", hint="is Kafka up? `fluvial status`"
                )
            for m in messages:
                partition, offset, error = m.partition(), m.offset(), m.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise CheckpointError(
                        f"cannot read {topic}: {error.str()}", hint="run `fluvial init`, see `fluvial status`"
                    )
                if partition is None or offset is None or partition not in going:
                    continue
                last = spans[partition][1]
                if error is None:
                    yield StoredRecord(partition, offset, bytes(m.key() or b""), m.value())
                if error is not None or (last is not None and offset >= last):
                    going.discard(partition)
    finally:
        consumer.close()
