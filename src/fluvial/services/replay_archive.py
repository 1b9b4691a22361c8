"""Replaying from an archive: the same source as the topic, out of the files that `fluvial archive` wrote."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fluvial.archive.layout import archived_partitions
from fluvial.archive.reader import archived_bounds, first_offset_since, read_archive
from fluvial.records import RecordColumns
from fluvial.services.replay_plan import Source
from fluvial.services.replay_reading import Batch
from fluvial.services.replay_records import ReplayError


@dataclass(frozen=True, slots=True)
class ArchivedBatch:
    """Some archived records of one partition."""

    partition: int
    first_offset: int
    next_offset: int
    records: RecordColumns

    def columns(self) -> RecordColumns:
        """Return them."""
        return self.records


class ArchiveSource:
    """A topic in a folder of archive files. An async context manager, like the topic's."""

    def __init__(self, directory: Path, topic: str) -> None:
        self._directory = directory
        self._topic = topic
        self.name = f"{topic} in {directory}"

    async def __aenter__(self) -> "ArchiveSource":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    async def look(self, timestamp_ms: int) -> Source:
        """Return what the archive has of each partition, and where records of this broker timestamp begin.

        Raises:
            ReplayError: nothing of the topic is there.
            ArchiveError: a file is damaged.
        """
        return await asyncio.to_thread(self._look, timestamp_ms)

    async def read(self, stretches: Mapping[int, tuple[int, int]]) -> AsyncIterator[Batch]:
        """Yield the batches of all stretches in turns, each partition's in offset order.

        Raises:
            ArchiveError: a file is damaged, or some of the offsets are not there.
        """
        at = {p: start for p, (start, end) in stretches.items() if start < end}
        files = {
            p: read_archive(self._directory, self._topic, p, start=start, end=stretches[p][1])
            for p, start in at.items()
        }
        while files:
            for p in list(files):
                records = await asyncio.to_thread(next, files[p], None)
                if records is None:
                    del files[p]
                    continue
                first, at[p] = at[p], records.next_offset
                yield ArchivedBatch(p, first, records.next_offset, records)

    def _look(self, timestamp_ms: int) -> Source:
        partitions = archived_partitions(self._directory, self._topic)
        if not partitions:
            raise ReplayError(
                f"{self._directory} has no archive of {self._topic}",
                hint=f"`fluvial archive {self._topic} --to {self._directory}` makes one",
            )
        bounds = {p: archived_bounds(self._directory, self._topic, p) for p in partitions}
        since: dict[int, tuple[int, int] | None] = {}
        for p, (_, end) in bounds.items():
            found = first_offset_since(self._directory, self._topic, p, timestamp_ms)
            since[p] = None if found >= end else (found, timestamp_ms)
        return Source(bounds, since)
