"""Writing a partition's archive: files that appear whole, one after the other, without a gap or an overlap."""

import os
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fluvial.archive.cells import MAX_BYTES
from fluvial.archive.files import NOTHING, Footer, check_chain, opened, verify
from fluvial.archive.layout import (
    UNFINISHED_PREFIX,
    ArchiveError,
    ArchiveFile,
    archived_files,
    file_name,
    partition_folder,
)
from fluvial.archive.rows import RAW, Rows
from fluvial.records import Mask, RecordColumns

FILE_BYTES = 256 << 20
# What a reader decompresses at once.
GROUP_BYTES = 32 << 20


class _Summed:
    """A file that is written from front to back, and the CRC-32 of what was written."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self.crc = 0

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Make it durable."""
        if not self.closed:
            self.closed = True
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


@dataclass(slots=True)
class _Open:
    path: Path
    file: _Summed
    parquet: pq.ParquetWriter
    first: int
    rows: int = 0
    bytes: int = 0


class PartitionWriter:
    """Writes one partition's records after what its archive has already. Not thread-safe: one call after the other.

    `next_offset` is the offset to write next, None while the archive is empty. Only finished files count: what was not
    finished when a process died is removed by the next writer, and written again. One writer per partition at a time.
    """

    def __init__(
        self,
        directory: Path,
        topic: str,
        partition: int,
        *,
        topic_id: str = "",
        rows: Rows = RAW,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        """Find where the archive ends, and remove what was left unfinished.

        ``topic_id`` is Kafka's; empty means that it is not known. ``rows`` is what is written of records.
        ``file_bytes`` is about how much is in a file, before compression.

        Raises:
            ArchiveError: its files do not follow each other, the last one is damaged, or they are of another topic of
                the same name.
        """
        self.topic = topic
        self.partition = partition
        self._topic_id = topic_id
        self._rows = rows
        self.next_offset: int | None = None
        self._folder = partition_folder(directory, topic, partition)
        self._file_bytes = file_bytes
        self._open: _Open | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._follows = NOTHING
        files = archived_files(directory, topic, partition)
        if files:
            check_chain(files, topic, partition)
            verify(files[-1])
            parquet, footer = opened(files[-1], topic, partition)
            parquet.close()
            if topic_id and footer.topic_id and footer.topic_id != topic_id:
                raise ArchiveError(
                    f"{self._folder} is of an earlier topic {topic}, which was deleted: the ids are {footer.topic_id} "
                    f"and {topic_id}",
                    hint="archive the new topic into another directory",
                )
            if footer.content != rows.content:
                raise ArchiveError(
                    f"{self._folder} holds {footer.content}, not {rows.content}",
                    hint="give raw records and decoded events a directory each",
                )
            self.next_offset = self._follows = files[-1].next
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{UNFINISHED_PREFIX}*"):
            left.unlink()

    def begin(self, offset: int) -> None:
        """Say where the first records come from: the log's first offset, or the one after a gap that was accepted."""
        self.next_offset = offset

    def write(self, records: RecordColumns, log_append: Mask) -> ArchiveFile | None:
        """Add the records that follow; a file that is large enough by then is finished, and returned.

        ``log_append`` is true where the broker set the timestamp.
        """
        first = self.next_offset
        assert first is not None, "begin first"
        assert not len(records) or records.offset[0] >= first, "records that the archive has"
        if self._open is None:
            self._open = self._begin_file(first)
        for rows in _pieces(records):
            batch = self._rows.make(_rows(records, rows), log_append[rows])
            self._open.rows += batch.num_rows
            self._open.bytes += batch.nbytes
            self._waiting.append(batch)
            self._waiting_bytes += batch.nbytes
            if self._waiting_bytes >= GROUP_BYTES:
                self._write_group(self._open.parquet)
        self.next_offset = records.next_offset
        return self.finish_file() if self._open.bytes >= self._file_bytes else None

    @property
    def unfinished(self) -> int:
        """How many records are written but in no finished file yet."""
        return self._open.rows if self._open else 0

    def finish_file(self) -> ArchiveFile | None:
        """Make what was written a finished file, durably; None when nothing was."""
        if self._open is None:
            return None
        done, after = self._open, self.next_offset
        assert after is not None
        self._write_group(done.parquet)
        footer = Footer(
            self._rows.content, self.topic, self._topic_id, self.partition, done.first, after, self._follows, done.rows
        )
        done.parquet.add_key_value_metadata(footer.metadata())
        done.parquet.close()
        done.file.close()
        target = self._folder / file_name(done.first, after, done.file.crc)
        os.rename(done.path, target)
        _sync(self._folder)
        self._open, self._follows = None, after
        return ArchiveFile(target, done.first, after, done.file.crc)

    def abandon(self) -> None:
        """Remove what is not finished."""
        if self._open is not None:
            self._open.parquet.close()
            self._open.file.close()
            self._open.path.unlink(missing_ok=True)
            self.next_offset = self._open.first
            self._open, self._waiting, self._waiting_bytes = None, [], 0

    def _begin_file(self, first: int) -> _Open:
        path = self._folder / f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}"
        file = _Summed(path)
        parquet = pq.ParquetWriter(
            pa.PythonFile(file, "w"),
            self._rows.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(self._rows.repeated),
            column_encoding={"offset": "DELTA_BINARY_PACKED", "timestamp": "DELTA_BINARY_PACKED"},
            write_statistics=["offset", "timestamp"],
            write_page_checksum=True,
        )
        return _Open(path, file, parquet, first)

    def _write_group(self, parquet: pq.ParquetWriter) -> None:
        if self._waiting:
            parquet.write_table(pa.Table.from_batches(self._waiting, self._rows.schema))
        self._waiting, self._waiting_bytes = [], 0


def _pieces(records: RecordColumns) -> list[Any]:
    """Return slices of the rows, each of which has fewer bytes than Arrow's arrays may."""
    end = np.maximum(records.key.length, 0) + np.maximum(records.value.length, 0)
    total = np.cumsum(end + 64)
    if not len(total) or total[-1] < MAX_BYTES // 2:
        return [slice(0, len(records))]
    cuts = np.flatnonzero(np.diff(total // (MAX_BYTES // 4))) + 1
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, len(records)], strict=True)]


def _rows(r: RecordColumns, rows: slice) -> RecordColumns:
    if rows == slice(0, len(r)):
        return r
    chosen = np.arange(rows.start, rows.stop)
    return RecordColumns(
        r.topic, r.partition, r.offset[chosen], r.timestamp[chosen], r.key.take(chosen), r.value.take(chosen),
        r.header_start[chosen], r.next_offset,
    )  # fmt: skip


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
