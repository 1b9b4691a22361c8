"""Files into a topic: read in chunks, made into events, encoded, published, counted."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluvial.producers.building import Built, build
from fluvial.producers.chunks import Chunk, ImportFileError, Source
from fluvial.producers.completion import NONE, Completion
from fluvial.producers.import_plan import ImportPlan
from fluvial.producers.latest import LatestTimes
from fluvial.producers.rejections import Rejected, RejectedFile
from fluvial.producers.ticks import keyed_tick, partition_tick
from fluvial.producers.times import NO_ZONE
from fluvial.records import Longs, Spans
from fluvial.schemas.encoder import Encoder
from fluvial.transport.publisher import Publisher

# Below what Kafka takes by default (1 MiB per record batch), with room for key and headers.
LARGEST_EVENT_BYTES = 900_000
TICKS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far the import of one file is; ``position`` of ``size`` bytes."""

    path: Path
    position: int
    size: int
    events: int
    rejected: int


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What became of one file: lines = lines with events + ``empty`` (no measure) + ``rejected``.

    ``nulls`` counts measures that were null, ``reasons`` rejected lines by reason; ``rejected_path`` is where they are.
    """

    path: Path
    lines: int
    events: int
    empty: int
    nulls: int
    rejected: int
    reasons: Counter[str]
    rejected_path: Path


class Importer:
    """Imports files into one topic by one plan. Every event is acknowledged when `import_file` returns."""

    def __init__(
        self, publisher: Publisher, topic: str, plan: ImportPlan, encoder: Encoder, event_time: str | None = None
    ) -> None:
        """``event_time`` names the field whose greatest value per key is kept in ``latest``, for `complete`."""
        self._publisher = publisher
        self._topic = topic
        self._plan = plan
        self._encoder = encoder
        self._event_time = event_time
        self.latest = LatestTimes()

    async def import_file(
        self, source: Source, rejected: RejectedFile, report: Callable[[FileProgress], None]
    ) -> FileSummary:
        """Publish a file's events and keep its rejected lines.

        Raises:
            PublishError: an event was not acknowledged.
        """
        chunks = source.chunks(self._plan.source_columns, self._plan.melt)
        size = source.path.stat().st_size
        lines = events = empty = nulls = bad = 0
        with closing(rejected):
            while (made := await asyncio.to_thread(self._next, chunks, rejected)) is not None:
                built, keys, values, position = made
                await self._publisher.publish(self._topic, keys, values)
                lines, events = lines + built.lines, events + len(keys)
                empty, nulls = empty + built.empty, nulls + built.nulls
                bad = rejected.reasons.total()
                report(FileProgress(source.path, position, size, events, bad))
            await self._publisher.flush()
        return FileSummary(source.path, lines, events, empty, nulls, bad, rejected.reasons, rejected.path)

    async def complete(self, completion: Completion) -> int:
        """Publish ticks, the keyed ones first; return how many were acknowledged.

        Raises:
            PublishError: one was not.
        """
        keyed = len(completion.keys)
        for first in range(0, keyed, TICKS_AT_ONCE):
            rows = range(first, min(first + TICKS_AT_ONCE, keyed))
            ticks = [keyed_tick(completion.keys.bytes_at(i) or b"", int(completion.key_instant[i])) for i in rows]
            await self._publisher.publish_records(self._topic, ticks)
        await self._publisher.flush()
        partitions = np.flatnonzero(completion.partition_instant != NONE).tolist()
        ticks = [partition_tick(p, int(completion.partition_instant[p])) for p in partitions]
        await self._publisher.publish_records(self._topic, ticks)
        await self._publisher.flush()
        return keyed + len(ticks)

    def _next(self, chunks: Iterator[Chunk], rejected: RejectedFile) -> tuple[Built, Spans, Spans, int] | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        built = build(chunk, self._plan)
        keys = built.columns[self._plan.key]
        assert isinstance(keys, Spans)
        values = self._encoder.encode(built.columns)
        rejected.write(built.rejected)
        fits = values.length + np.maximum(keys.length, 0) <= LARGEST_EVENT_BYTES
        if not fits.all():
            rejected.write([_too_large(chunk, int(row)) for row in np.unique(built.row[~fits])])
            keys, values = keys.take(fits), values.take(fits)
        if self._event_time is not None:
            times = built.columns[self._event_time]
            assert isinstance(times, Longs)
            self.latest.add(keys, times.values[fits])
        return built, keys, values, chunk.position


def preview(sources: Sequence[Source], plan: ImportPlan) -> list[Built]:
    """Return the events of the first chunk of every file, so that what is wrong with all of it is seen up front.

    Raises:
        ImportFileError: a time has no zone, and none was given.
    """
    built = []
    for source in sources:
        chunk = next(source.chunks(plan.source_columns, plan.melt), None)
        if chunk is None:
            continue
        first = build(chunk, plan)
        for r in first.rejected:
            if NO_ZONE in r.reason:
                where = f"{source.path}, line {r.line}: {r.reason.removesuffix(NO_ZONE)}"
                raise ImportFileError(
                    f"{where}the time has no zone, so nobody can tell which instant it is",
                    hint="say where the clock ran that wrote it, e.g. --timezone Europe/Berlin or --timezone UTC",
                )
        built.append(first)
    return built


def _too_large(chunk: Chunk, row: int) -> Rejected:
    return Rejected(int(chunk.line[row]), f"larger than {LARGEST_EVENT_BYTES} bytes when encoded", chunk.raw(row))
