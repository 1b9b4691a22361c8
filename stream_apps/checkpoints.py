"""Checkpoints in Kafka: a compacted topic of chunks and manifests, written beside the stream, read on assignment.

A checkpoint is a cache of a function of the log, so any valid one will do: a zombie's too, an older one too. Chunks carry
their checkpoint's own id and are never overwritten; a manifest is written when all of its chunks are acknowledged. Two
manifest slots per partition keep the last but one readable until the next is complete.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fluvial import failpoints
from fluvial.errors import CheckpointError
from fluvial.settings import KafkaSettings
from fluvial.stream_apps.checkpoint_format import FORMAT, digest, unpack
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import OutRecord, Publisher

log = logging.getLogger(__name__)

CHUNK_BYTES = 900_000
SLOTS = 2
READ_TIMEOUT_SECONDS = 60.0


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


@dataclass(frozen=True, slots=True)
class _Manifest:
    slot: int
    snapshot: str
    chunks: int
    digest: str
    next_offset: int
    format: int
    ledger: Mapping[str, Mapping[str, int]]


class CheckpointStore:
    """Reads and writes the checkpoints of one worker group, in a topic of so many partitions."""

    def __init__(self, kafka: KafkaSettings, topic: str, partitions: int) -> None:
        self._kafka = kafka
        self.topic = topic
        self._partitions = partitions
        self._slots: dict[Place, dict[int, _Manifest]] = {}

    async def write(
        self, publisher: Publisher, place: Place, next_offset: int, data: bytes, ledger: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Store a packed snapshot that covers everything below ``next_offset``; return when Kafka has all of it.

        ``ledger`` is written into the manifest, where it can be read without the state.

        Raises:
            PublishError: not everything was acknowledged; the checkpoint before stays the newest.
        """
        partition = self._partition(place)
        held = self._slots.setdefault(place, {})
        slot = min(range(SLOTS), key=lambda s: held[s].next_offset if s in held else -1)
        chunks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
        new = _Manifest(slot, uuid.uuid4().hex, len(chunks), digest(data), next_offset, FORMAT, ledger)
        records = [OutRecord(_chunk_key(place, new, i), c, partition=partition) for i, c in enumerate(chunks)]
        sent = await publisher.publish_records(self.topic, records)
        failpoints.hit("checkpoint.amid-chunks")
        await sent
        failpoints.hit("checkpoint.between-chunks-and-manifest")
        manifest = {
            "format": FORMAT, "snapshot": new.snapshot, "chunks": new.chunks, "digest": new.digest, "next_offset": next_offset,
            "written_ms": time.time_ns() // 1_000_000, "ledger": ledger,
        }  # fmt: skip
        record = OutRecord(_manifest_key(place, slot), json.dumps(manifest).encode(), partition=partition)
        await (await publisher.publish_records(self.topic, [record]))
        failpoints.hit("checkpoint.between-manifest-and-clean-up")
        old = held.get(slot)
        held[slot] = new
        if old is not None:
            dead = [OutRecord(_chunk_key(place, old, i), None, partition=partition) for i in range(old.chunks)]
            await (await publisher.publish_records(self.topic, dead))

    def load(self, places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
        """Return the newest valid snapshot of each place that has one. Blocking: call it in a thread.

        Raises:
            CheckpointError: the topic cannot be read (a damaged checkpoint is only logged, and the next older one used).
        """
        wanted = {p.prefix: p for p in places}
        found: dict[Place, dict[str, Any]] = {}
        chunks, manifests = self._read(wanted)
        for place, slots in manifests.items():
            self._slots[place] = dict(slots)
            for m in sorted(slots.values(), key=lambda m: -m.next_offset):
                try:
                    found[place] = _assemble(place, m, chunks)
                    break
                except CheckpointError as e:
                    log.warning("%s", e)
                    del self._slots[place][m.slot]
        return found

    def ledgers(self, places: Iterable[Place]) -> dict[Place, tuple[int, Mapping[str, Mapping[str, int]]]]:
        """Return, per place that has a checkpoint, the offset that the newest one covers and its ledger. Blocking."""
        _, manifests = self._read({p.prefix: p for p in places})
        newest = {
            place: max(slots.values(), key=lambda m: m.next_offset) for place, slots in manifests.items() if slots
        }
        return {place: (m.next_offset, m.ledger) for place, m in newest.items()}

    def _read(self, wanted: Mapping[str, Place]) -> tuple[dict[bytes, bytes], dict[Place, dict[int, _Manifest]]]:
        chunks: dict[bytes, bytes] = {}
        manifests: dict[Place, dict[int, _Manifest]] = {}
        if not wanted:
            return chunks, manifests
        config = librdkafka_config(self._kafka) | {
            "group.id": f"{self.topic}-reader", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "enable.partition.eof": True, "check.crcs": True, "fetch.message.max.bytes": 8 << 20, "queued.min.messages": 1000,
        }  # fmt: skip
        consumer = Consumer(config)
        try:
            partitions = sorted({self._partition(p) for p in wanted.values()})
            consumer.assign([TopicPartition(self.topic, p, 0) for p in partitions])
            open_partitions = set(partitions)
            deadline = time.monotonic() + READ_TIMEOUT_SECONDS
            while open_partitions:
                messages = consumer.consume(500, timeout=1.0)
                if messages:
                    deadline = time.monotonic() + READ_TIMEOUT_SECONDS
                elif time.monotonic() > deadline:
                    raise CheckpointError(
                        f"{self.topic} did not answer for {READ_TIMEOUT_SECONDS:.0f} s",
                        hint="is Kafka up? `fluvial status`",
                    )
                for m in messages:
                    error = m.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            open_partitions.discard(m.partition())
                            continue
                        raise CheckpointError(
                            f"cannot read {self.topic}: {error.str()}", hint="run `fluvial init`, see `fluvial status`"
                        )
                    _take(m.key(), m.value(), wanted, chunks, manifests)
        finally:
            consumer.close()
        return chunks, manifests

    def _partition(self, place: Place) -> int:
        return place.partition % self._partitions


def _chunk_key(place: Place, m: _Manifest, i: int) -> bytes:
    return f"{place.prefix}{m.snapshot}|{i:06d}".encode()


def _manifest_key(place: Place, slot: int) -> bytes:
    return f"{place.prefix}manifest|{slot}".encode()


def _take(
    key: bytes,
    value: bytes | None,
    wanted: Mapping[str, Place],
    chunks: dict[bytes, bytes],
    manifests: dict[Place, dict[int, _Manifest]],
) -> None:
    topic, partition, generation, kind, last = key.decode().split("|")
    place = wanted.get(f"{topic}|{partition}|{generation}|")
    if place is None:
        return
    if kind != "manifest":
        if value is None:
            chunks.pop(key, None)
        else:
            chunks[key] = value
        return
    slot = int(last)
    if value is None:
        manifests.get(place, {}).pop(slot, None)
        return
    try:
        m = json.loads(value)
        manifests.setdefault(place, {})[slot] = _Manifest(
            slot, m["snapshot"], m["chunks"], m["digest"], m["next_offset"], m["format"], m.get("ledger", {})
        )
    except (ValueError, KeyError, TypeError) as e:
        log.warning("manifest %s is not readable (%s): an older checkpoint or the log is used instead", key, e)


def _assemble(place: Place, m: _Manifest, chunks: Mapping[bytes, bytes]) -> dict[str, Any]:
    where = f"checkpoint of {place.topic}[{place.partition}] at {m.next_offset}"
    hint = "an older checkpoint or the log is used instead"
    if m.format != FORMAT:
        raise CheckpointError(f"{where} has format {m.format}, this version reads {FORMAT}", hint=hint)
    parts = [chunks.get(_chunk_key(place, m, i)) for i in range(m.chunks)]
    if any(p is None for p in parts):
        raise CheckpointError(f"{where} is incomplete", hint=hint)
    data = b"".join(p for p in parts if p is not None)
    if digest(data) != m.digest:
        raise CheckpointError(f"{where} is damaged: its digest differs", hint=hint)
    return unpack(data)
