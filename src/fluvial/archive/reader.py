"""Reading an archive back: the records of a partition, as the transport hands them out.

for records in read_archive(Path("/archive"), "iot.readings", 3, start=18_000):
    ...                                              # a RecordColumns, offsets ascending from one to the next
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fluvial.archive.cells import RECORD, from_arrow
from fluvial.archive.files import NOTHING, RECORDS, check_chain, damaged, opened, verify
from fluvial.archive.layout import ArchiveError, ArchiveFile, archived_files, archived_partitions, covering
from fluvial.records import RecordColumns, Spans

__all__ = ["ArchiveError", "archived_bounds", "archived_partitions", "first_offset_since", "read_archive"]

CHUNK_ROWS = 100_000


def archived_bounds(directory: Path, topic: str, partition: int) -> tuple[int, int]:
    """Return the offsets that an archive has of a partition: the first, and the one after the last.

    Raises:
        ArchiveError: it has none, or two files of the same offsets.
    """
    files = _files(directory, topic, partition)
    return files[0].first, files[-1].next


def first_offset_since(directory: Path, topic: str, partition: int, timestamp_ms: int) -> int:
    """Return the offset of the first record whose timestamp is not before ``timestamp_ms``, as Kafka's lookup does.

    At the grain of row groups: it may be that of an earlier record, never of a later one. Without any such record it is
    the archive's end.

    Raises:
        ArchiveError: the archive has nothing of the partition, or a file is damaged.
    """
    files = _files(directory, topic, partition)
    for f in files:
        parquet, _ = opened(f, topic, partition)
        with parquet:
            for group in range(parquet.metadata.num_row_groups):
                columns = parquet.metadata.row_group(group)
                offset, time = columns.column(0).statistics, columns.column(1).statistics
                if offset is None or time is None or not time.has_min_max:
                    return f.first
                if time.max.timestamp() * 1000 >= timestamp_ms:
                    return int(offset.min)
    return files[-1].next


def read_archive(
    directory: Path, topic: str, partition: int, *, start: int = 0, end: int | None = None
) -> Iterator[RecordColumns]:
    """Yield the archived records of a partition with ``start`` ≤ offset < ``end``, in offset order.

    ``end`` None is where the archive ends. A ``start`` before the first offset that the log still had when the archive
    was begun is that offset, as with Kafka's earliest. ``next_offset`` of what is yielded leads from one to the next
    without a gap, and the last one's is ``end`` (also where that yields no row). At most `CHUNK_ROWS` rows at a time.

    Raises:
        ArchiveError: the archive lacks some of these offsets, or a file is damaged; what came before was right.
    """
    files = _files(directory, topic, partition)
    end = files[-1].next if end is None else end
    if end > files[-1].next:
        raise ArchiveError(
            f"the archive of {topic}[{partition}] in {directory} ends at {files[-1].next - 1}, "
            f"{end - files[-1].next} offsets short",
            hint="run `fluvial archive` first, or ask for less",
        )
    _check_begin(files[0], topic, partition, start)
    wanted = covering(files, start, end)
    for first, after in check_chain(wanted, topic, partition):
        raise ArchiveError(
            f"{topic}[{partition}] has no offsets {first} to {after - 1} in {directory}: they were deleted from Kafka "
            "before they were archived",
            hint=f"read up to {first}, and from {after} on",
        )
    for f in wanted:
        yield from _read(f, topic, partition, start, end)


def _files(directory: Path, topic: str, partition: int) -> list[ArchiveFile]:
    files = archived_files(directory, topic, partition)
    if not files:
        known = ", ".join(map(str, archived_partitions(directory, topic)))
        raise ArchiveError(
            f"{directory} has no archive of {topic}[{partition}]",
            hint=f"it has the partitions {known}" if known else f"fluvial archive {topic} --to {directory}",
        )
    return files


def _check_begin(first: ArchiveFile, topic: str, partition: int, start: int) -> None:
    if start >= first.first:
        return
    parquet, footer = opened(first, topic, partition)
    parquet.close()
    if footer.follows != NOTHING:
        raise ArchiveError(
            f"{first.path.parent} has no file of the offsets {start} to {first.first - 1}: the first one there was "
            f"written after one that ended at {footer.follows - 1}",
            hint=f"restore what came before, or start at {first.first}",
        )


def _read(file: ArchiveFile, topic: str, partition: int, start: int, end: int) -> Iterator[RecordColumns]:
    """Yield a file's records between two offsets; the last yielded covers what the file does."""
    last: RecordColumns | None = None
    for records in _pieces(file, topic, partition):
        chosen = _between(records, start, end)
        if not len(chosen):
            continue
        if last is not None:
            yield last
        last = chosen
    if last is None:
        nothing = np.zeros(0, np.int64)
        spans = Spans(np.zeros(0, np.uint8), nothing, nothing)
        last = RecordColumns(topic, partition, nothing, nothing, spans, spans, nothing, 0)
    yield replace(last, next_offset=min(file.next, end))


def _pieces(file: ArchiveFile, topic: str, partition: int) -> Iterator[RecordColumns]:
    verify(file)
    parquet, footer = opened(file, topic, partition)
    with parquet:
        if footer.content != RECORDS:
            raise ArchiveError(f"{file.path} holds decoded events", hint="use an archive made without --decoded")
        before = file.first - 1
        for group in range(parquet.metadata.num_row_groups):
            try:
                table: pa.Table = parquet.read_row_group(group)
            except (pa.ArrowException, OSError) as e:
                raise damaged(file, e) from None
            if not table.schema.equals(RECORD):
                raise damaged(file, "its columns are not those of an archive")
            for at in range(0, table.num_rows, CHUNK_ROWS):
                records = from_arrow(table.slice(at, CHUNK_ROWS), topic, partition)
                if (np.diff(records.offset, prepend=before) <= 0).any() or records.offset[-1] >= file.next:
                    raise damaged(file, "its offsets do not ascend within its range")
                before = int(records.offset[-1])
                yield records


def _between(records: RecordColumns, start: int, end: int) -> RecordColumns:
    a, b = np.searchsorted(records.offset, [start, end])
    if a == 0 and b == len(records):
        return records
    rows = np.arange(a, b)
    return RecordColumns(
        records.topic,
        records.partition,
        records.offset[rows],
        records.timestamp[rows],
        records.key.take(rows),
        records.value.take(rows),
        records.header_start[rows],
        int(records.offset[b - 1]) + 1 if b > a else start,
    )
