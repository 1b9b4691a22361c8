"""Topics to Parquet files: from where each partition's archive ends to where its log does, or for ever."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from confluent_kafka.admin import AdminClient

from fluvial.archive.layout import ArchiveError, ArchiveFile
from fluvial.archive.lock import archiving
from fluvial.archive.rows import RAW, Rows
from fluvial.archive.writer import FILE_BYTES, PartitionWriter
from fluvial.cluster.progress import Report, Step, silent
from fluvial.services.partitions import partition_counts
from fluvial.settings import KafkaSettings
from fluvial.transport.available import FromAvailable, Gap
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.identity import topic_ids
from fluvial.transport.reading import LogReader, Place, PositionGoneError

R = TypeVar("R")

POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Rolling:
    """When a file is finished: with so many bytes before compression, or so long after its first record."""

    file_bytes: int = FILE_BYTES
    file_seconds: float = 300.0


@dataclass(slots=True)
class Archived:
    """What one topic's archiving has done: records and files written, their bytes, offsets accepted as lost."""

    topic: str
    records: int = 0
    files: int = 0
    bytes: int = 0
    skipped: int = 0


class Archiver:
    """Archives topics into a directory, as `run` says; `archived` is what has been done."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str],
        directory: Path,
        *,
        rows: Mapping[str, Rows] | None = None,
        from_available: FromAvailable | None = None,
        rolling: Rolling | None = None,
        report: Report = silent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing connects before `run`. ``rows`` says what is written of a topic's records, if not they themselves."""
        self._kafka = kafka
        self._rows = rows or {}
        self._directory = directory
        self._from_available = from_available or FromAvailable()
        self._rolling = rolling or Rolling()
        self._report = report
        self._clock = clock
        self._writers: dict[Place, PartitionWriter] = {}
        self._begun: dict[Place, float] = {}
        self._goals: dict[Place, int] = {}
        self._first: dict[Place, int] = {}
        self._pool = ThreadPoolExecutor(2, "fluvial-archive")
        self.archived = {topic: Archived(topic) for topic in dict.fromkeys(topics)}

    async def run(self, stop: asyncio.Event, *, follow: bool) -> None:
        """Write what the log has now, or with ``follow`` go on until ``stop``; what was written is in finished files then.

        Raises:
            ProvisioningError: a topic does not exist.
            ArchiveError: an archive cannot be continued, or offsets that it lacks were deleted.
            TransportError: Kafka does not answer, or the log is corrupt.
        """
        with ExitStack() as held:
            for topic in self.archived:
                held.enter_context(archiving(self._directory, topic))
            counts = await asyncio.to_thread(partition_counts, self._kafka, set(self.archived))
            admin = AdminClient(librdkafka_config(self._kafka))
            ids = await asyncio.to_thread(topic_ids, admin, list(self.archived))
            for topic, count in counts.items():
                for p in range(count):
                    self._writers[topic, p] = await self._in_thread(self._new_writer, topic, p, ids.get(topic, ""))
            async with LogReader(self._kafka, self.archived) as reader:
                try:
                    await self._begin(reader)
                    await self._copy(reader, stop, follow)
                    await self._finish_all()
                except PositionGoneError as e:
                    await self._finish_all()
                    first, end = (await reader.bounds([e.place]))[e.place]
                    raise self._gone([Gap(*e.place, e.offset, first, end)]) from None
                finally:
                    self._pool.shutdown()
                    for writer in self._writers.values():
                        writer.abandon()

    def _new_writer(self, topic: str, partition: int, topic_id: str) -> PartitionWriter:
        return PartitionWriter(
            self._directory,
            topic,
            partition,
            topic_id=topic_id,
            rows=self._rows.get(topic, RAW),
            file_bytes=self._rolling.file_bytes,
        )

    async def _begin(self, reader: LogReader) -> None:
        bounds = await reader.bounds(self._writers)
        gaps = []
        for place, writer in self._writers.items():
            first, end = bounds[place]
            self._goals[place] = end
            if writer.next_offset is None:
                writer.begin(first)
            elif not first <= writer.next_offset <= end:
                gap = Gap(*place, writer.next_offset, first, end)
                if self._from_available.accepts(gap):
                    writer.begin(first)
                    self.archived[place[0]].skipped += gap.lost
                else:
                    gaps.append(gap)
            self._first[place] = writer.next_offset or 0
        if gaps:
            raise self._gone(gaps)
        reader.start({place: self._first[place] for place in self._writers})

    async def _copy(self, reader: LogReader, stop: asyncio.Event, follow: bool) -> None:
        left = {place for place, goal in self._goals.items() if follow or self._first[place] < goal}
        while left and not stop.is_set():
            batches = await reader.fetched(POLL_SECONDS)
            for written in await asyncio.gather(*(self._in_thread(self._write, b) for b in batches)):
                self._note(written)
            for b in batches:
                place = (b.topic, b.partition)
                if not follow and b.next_offset >= self._goals[place]:
                    left.discard(place)
                    reader.leave(place)
            await self._finish_old()
            self._show(follow)

    def _write(self, batch: FetchedBatch) -> tuple[Place, int, ArchiveFile | None]:
        place = (batch.topic, batch.partition)
        records = batch.columns()
        self._begun.setdefault(place, self._clock())
        finished = self._writers[place].write(records, batch.log_append_time(records.offset))
        return place, len(records), finished

    def _note(self, written: tuple[Place, int, ArchiveFile | None]) -> None:
        place, records, finished = written
        to = self.archived[place[0]]
        to.records += records
        if finished is not None:
            self._begun.pop(place, None)
            to.files += 1
            to.bytes += finished.path.stat().st_size

    async def _finish_old(self) -> None:
        now = self._clock()
        old = [p for p, begun in self._begun.items() if now - begun >= self._rolling.file_seconds]
        await self._finish(old)

    async def _finish_all(self) -> None:
        await self._finish(list(self._writers))

    async def _finish(self, places: Sequence[Place]) -> None:
        finished = await asyncio.gather(*(self._in_thread(self._writers[p].finish_file) for p in places))
        for place, file in zip(places, finished, strict=True):
            self._note((place, 0, file))

    def _show(self, follow: bool) -> None:
        for topic, done in self.archived.items():
            mine = [p for p in self._writers if p[0] == topic]
            total = sum(max(self._goals[p] - self._first[p], 0) for p in mine)
            if follow or not total:
                self._report(Step(topic, f"{done.records:,} records in {done.files} finished files"))
            else:
                at = sum(min(self._writers[p].next_offset or 0, self._goals[p]) - self._first[p] for p in mine)
                self._report(Step(topic, f"{done.records:,} records", at, total))

    def _gone(self, gaps: Sequence[Gap]) -> ArchiveError:
        said = "; ".join(
            f"{g.topic}[{g.partition}] is archived up to {g.wanted - 1}, and the log has {g.first} to {g.end - 1} now"
            + (f": {g.lost} offsets were deleted before they were archived" if g.lost else "")
            for g in gaps
        )
        if any(not g.lost for g in gaps):
            return ArchiveError(said, hint="the topic was created anew or truncated: archive it into another directory")
        names = " ".join(dict.fromkeys(g.topic for g in gaps))
        accepted = " ".join(f"--from-available {g.choice}" for g in gaps)
        return ArchiveError(
            said, hint=f"to leave the gap in the archive: fluvial archive {names} --to {self._directory} {accepted}"
        )

    async def _in_thread(self, call: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
