"""Checkpoints in Kafka: a compacted topic of chunks and manifests, written beside the stream, read on assignment.

A checkpoint is a cache of a function of the log, so any valid one will do: a zombie's too, an older one too. Only blocks that
changed are written; a manifest, written when all chunks are acknowledged, says where every block is. Two manifests by turns keep
the last but one readable until the next is complete; then what neither of them needs is deleted.

Every assignment begins a line of its own, whose first checkpoint is whole: a line relies on no chunk that another one wrote and
might delete. So nobody can break a checkpoint of somebody who does not know of him.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from fluvial import failpoints
from fluvial.settings import KafkaSettings
from fluvial.stream_apps.checkpoint_format import (
    Manifest,
    StoredArray,
    StoredBlock,
    digest,
    marks,
    pack_block,
    pack_manifest,
)
from fluvial.stream_apps.checkpoint_reader import (
    Place,
    Reads,
    chunk_key,
    manifest_key,
    read_snapshots,
    read_topic,
    scan,
)
from fluvial.stream_apps.snapshots import blocks_of
from fluvial.transport.delivery import Delivery
from fluvial.transport.publisher import OutRecord, Publisher

__all__ = ["CheckpointStore", "Place", "Written"]

_T = TypeVar("_T")

CHUNK_BYTES = 900_000
# How much is compressed at a time, and how much of it may wait for its acknowledgement.
GROUP_BYTES, IN_FLIGHT_BYTES = 2 << 20, 8 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What a checkpoint took: its blocks, those of them that had changed, their bytes as stored, and CPU seconds."""

    blocks: int
    changed: int
    bytes: int
    cpu_seconds: float


class _Known(NamedTuple):
    mark: int
    stored: StoredBlock


_KnownArrays = Mapping[tuple[str, str], list[_Known]]


@dataclass(slots=True)
class _Line:
    """The checkpoints that one assignment of a place has written: its chunks, and what each of its two manifests needs."""

    writer: str = field(default_factory=lambda: secrets.token_hex(8))
    seed: int = field(default_factory=lambda: secrets.randbits(64))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    chunks: int = 0
    known: _KnownArrays = field(default_factory=dict)
    slots: list[set[int]] = field(default_factory=lambda: [set(), set()])
    turn: int = 0
    # In no manifest: what a checkpoint that failed has left.
    dead: set[int] = field(default_factory=set)
    # Keys of other lines, to be deleted after the next manifest, after the one after it, …
    others: list[list[bytes]] = field(default_factory=list)


class CheckpointStore:
    """Reads and writes the checkpoints of one worker group, in a topic of so many partitions."""

    def __init__(self, kafka: KafkaSettings, topic: str, partitions: int, read: Reads | None = None) -> None:
        """``read`` is how the topic is read, when not from Kafka."""
        self.topic = topic
        self._read = read or partial(read_topic, kafka, topic)
        self._partitions = partitions
        self._lines: dict[Place, _Line] = {}

    async def write(self, publisher: Publisher, place: Place, next_offset: int, snapshot: Mapping[str, Any]) -> Written:
        """Store a snapshot that covers everything below ``next_offset``; return when Kafka has all of it.

        Raises:
            PublishError: not everything was acknowledged; the checkpoint before stays the newest.
        """
        line = self._lines.setdefault(place, _Line())
        async with line.lock:
            writing, first = _Writing(line, snapshot), line.chunks
            try:
                await self._chunks(publisher, place, line, writing)
                failpoints.hit("checkpoint.between-chunks-and-manifest")
                values = {k: v for k, v in snapshot.items() if k != "components"}
                parts = snapshot["components"].items()
                values["components"] = {n: {k: v for k, v in p.items() if k != "arrays"} for n, p in parts}
                manifest = Manifest(next_offset, values, writing.arrays)
                packed = pack_manifest(manifest)
                record = OutRecord(manifest_key(place, line.writer, line.turn), packed, partition=self._at(place))
                await (await publisher.publish_records(self.topic, [record]))
            except BaseException:
                line.dead |= set(range(first, line.chunks))
                raise
            line.dead |= line.slots[line.turn]
            line.slots[line.turn] = manifest.chunks()
            line.turn, line.known = 1 - line.turn, writing.known
            failpoints.hit("checkpoint.between-manifest-and-clean-up")
            await self._delete(publisher, place, line)
            return Written(writing.blocks, writing.changed, writing.bytes + len(packed), writing.cpu_seconds)

    async def _chunks(self, publisher: Publisher, place: Place, line: _Line, writing: "_Writing") -> None:
        waiting: list[tuple[Delivery, int]] = []
        groups = writing.groups()
        while (group := await asyncio.to_thread(writing.timed, lambda: next(groups, None))) is not None:
            partition = self._at(place)
            records = [OutRecord(chunk_key(place, line.writer, n), piece, partition=partition) for n, piece in group]
            waiting.append((await publisher.publish_records(self.topic, records), sum(len(p) for _, p in group)))
            failpoints.hit("checkpoint.amid-chunks")
            while sum(size for _, size in waiting) > IN_FLIGHT_BYTES:
                await waiting.pop(0)[0]
        for delivery, _ in waiting:
            await delivery

    async def _delete(self, publisher: Publisher, place: Place, line: _Line) -> None:
        dead = [chunk_key(place, line.writer, n) for n in sorted(line.dead - line.slots[0] - line.slots[1])]
        dead += line.others[0] if line.others else []
        await (
            await publisher.publish_records(self.topic, [OutRecord(k, None, partition=self._at(place)) for k in dead])
        )
        line.dead, line.others = set(), line.others[1:]

    def renew(self, place: Place) -> None:
        """Begin a new line: after a reassignment others may have deleted what they found of this one."""
        before = self._lines.get(place)
        line = self._lines[place] = _Line()
        if before is not None:
            chunks = [chunk_key(place, before.writer, n) for n in before.slots[0] | before.slots[1] | before.dead]
            line.others = [[], [*chunks, *(manifest_key(place, before.writer, slot) for slot in (0, 1))]]
            for i, keys in enumerate(before.others):
                line.others[min(i, 1)] += keys

    def load(self, places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
        """Return the newest valid snapshot of each place that has one. Blocking: call it in a thread.

        Raises:
            CheckpointError: the topic cannot be read (a damaged checkpoint is only logged, and the next older one used).
        """
        at = {place: self._at(place) for place in places}
        found = scan(self._read, at)
        chosen = read_snapshots(self._read, at, found)
        for place in at:
            kept = chosen[place].keys if place in chosen else frozenset()
            rest = [k for k in found[place].keys if k not in kept]
            self._lines[place] = _Line(others=[rest, sorted(kept)])
        return {place: c.snapshot for place, c in chosen.items()}

    def ledgers(self, places: Iterable[Place]) -> dict[Place, tuple[int, Mapping[str, Mapping[str, int]]]]:
        """Return, per place that has a checkpoint, the offset that the newest one covers and its ledger. Blocking."""
        found = scan(self._read, {place: self._at(place) for place in places})
        newest = {place: f.complete()[0].manifest for place, f in found.items() if f.complete()}
        return {place: (m.next_offset, m.ledger) for place, m in newest.items()}

    def _at(self, place: Place) -> int:
        return place.partition % self._partitions


class _Writing:
    """A checkpoint that is being written: which blocks it has, and what of them is to be sent."""

    def __init__(self, line: _Line, snapshot: Mapping[str, Any]) -> None:
        self._line = line
        self._snapshot = snapshot
        self.known: dict[tuple[str, str], list[_Known]] = {}
        self.arrays: dict[str, dict[str, StoredArray]] = {}
        self.blocks = 0
        self.changed = 0
        self.bytes = 0
        self.cpu_seconds = 0.0

    def timed(self, call: Callable[[], _T]) -> _T:
        """Return what ``call`` returns, and count its CPU time."""
        before = time.thread_time()
        try:
            return call()
        finally:
            self.cpu_seconds += time.thread_time() - before

    def groups(self) -> Iterator[list[tuple[int, bytes]]]:
        """Yield the numbers and bytes of the chunks to be sent, some megabytes at a time."""
        group: list[tuple[int, bytes]] = []
        size = 0
        for component, part in self._snapshot["components"].items():
            arrays = self.arrays[component] = {}
            for name, array in part["arrays"].items():
                parts = blocks_of(array)
                before, known = self._line.known.get((component, name), []), list[_Known]()
                for i, mark in enumerate(marks(parts, self._line.seed).tolist()):
                    rows = int(parts.bounds[i + 1] - parts.bounds[i])
                    self.blocks += 1
                    if i < len(before) and (before[i].mark, before[i].stored.rows) == (mark, rows):
                        known.append(before[i])
                        continue
                    data = pack_block(parts.block(i), parts.shuffled)
                    pieces = [data[x : x + CHUNK_BYTES] for x in range(0, len(data), CHUNK_BYTES)]
                    first, self._line.chunks = self._line.chunks, self._line.chunks + len(pieces)
                    known.append(_Known(mark, StoredBlock(rows, first, len(pieces), digest(pieces))))
                    group += enumerate(pieces, first)
                    size += parts.block(i).nbytes
                    self.changed += 1
                    self.bytes += len(data)
                    if size >= GROUP_BYTES:
                        yield group
                        group, size = [], 0
                stored = tuple(k.stored for k in known)
                arrays[name] = StoredArray(parts.array.dtype.str, parts.array.shape, parts.shuffled, stored)
                self.known[component, name] = known
        if group:
            yield group
