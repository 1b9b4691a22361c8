"""Where an archive's files are and which offsets they hold: ``topic=T/partition=N/<first>-<next>-<crc>.parquet``.

A file's name says that it holds every committed record from ``first`` up to, not including, ``next``, and what the
CRC-32 (zlib's) of its bytes is. The folders are Hive's, so Spark, Hive, Trino, DuckDB and pyarrow see ``topic`` and
``partition`` as columns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fluvial.errors import FluvialError

SUFFIX = ".parquet"
# Readers of Parquet folders leave out what begins with a dot or an underscore.
UNFINISHED_PREFIX = ".unfinished-"
_NAME = re.compile(r"(\d{20})-(\d{20})-([0-9a-f]{8})\.parquet")
_PARTITION = re.compile(r"partition=(\d+)")


class ArchiveError(FluvialError):
    """An archive is damaged, has a gap where records are asked for, or belongs to something else."""


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A finished file and the offsets that it covers: ``first`` ≤ offset < ``next``; ``crc`` is of all its bytes."""

    path: Path
    first: int
    next: int
    crc: int


def topic_folder(directory: Path, topic: str) -> Path:
    """Return where a topic's partitions are."""
    return directory / f"topic={topic}"


def partition_folder(directory: Path, topic: str, partition: int) -> Path:
    """Return where a partition's files are."""
    return topic_folder(directory, topic) / f"partition={partition}"


def file_name(first: int, next_offset: int, crc: int) -> str:
    """Return the name of the file that covers these offsets; names sort as the offsets do."""
    return f"{first:020d}-{next_offset:020d}-{crc:08x}{SUFFIX}"


def archived_partitions(directory: Path, topic: str) -> list[int]:
    """Return the partitions of a topic that the archive has files of, ascending."""
    folder = topic_folder(directory, topic)
    if not folder.is_dir():
        return []
    found = [int(m[1]) for p in folder.iterdir() if (m := _PARTITION.fullmatch(p.name))]
    return sorted(p for p in found if archived_files(directory, topic, p))


def archived_files(directory: Path, topic: str, partition: int) -> list[ArchiveFile]:
    """Return a partition's finished files in offset order.

    Raises:
        ArchiveError: two files hold the same offsets.
    """
    folder = partition_folder(directory, topic, partition)
    if not folder.is_dir():
        return []
    named = [(p, _NAME.fullmatch(p.name)) for p in sorted(folder.iterdir())]
    files = [ArchiveFile(p, int(m[1]), int(m[2]), int(m[3], 16)) for p, m in named if m]
    for a, b in pairwise(files):
        if b.first < a.next:
            raise ArchiveError(
                f"{a.path} and {b.path.name} both hold the offsets {b.first} to {min(a.next, b.next) - 1}",
                hint="one of them was put there by hand, or by an archiver of another topic of that name; move it away",
            )
    return files


def covering(files: Sequence[ArchiveFile], start: int, end: int | None) -> list[ArchiveFile]:
    """Return the files that hold anything between ``start`` and ``end`` (exclusive; None: the archive's end)."""
    return [f for f in files if f.next > start and (end is None or f.first < end)]
