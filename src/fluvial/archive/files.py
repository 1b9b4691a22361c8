"""One archive file's footer: what it says of itself, and the checks that its content has to pass."""

import mmap
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fluvial.archive.layout import ArchiveError, ArchiveFile

FORMAT = "1"
RECORDS, EVENTS = "records", "events"
# Before the first file of a partition there is none that it follows.
NOTHING = -1
_PREFIX = "fluvial."


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself.

    ``content`` is `RECORDS` or `EVENTS` (decoded). ``follows`` is where the archive ended when the file was begun: its
    own ``first``, less where a gap was accepted, `NOTHING` where the archive begins. ``topic_id`` is Kafka's, which
    tells a topic from a later one of the same name; empty where the brokers give none.
    """

    content: str
    topic: str
    topic_id: str
    partition: int
    first: int
    next: int
    follows: int
    rows: int

    def metadata(self) -> dict[str, str]:
        """Return it as Parquet's key-value metadata."""
        values: dict[str, Any] = {
            "format": FORMAT, "content": self.content, "topic": self.topic, "topic_id": self.topic_id,
            "partition": self.partition, "first_offset": self.first, "next_offset": self.next,
            "follows_offset": self.follows, "records": self.rows,
        }  # fmt: skip
        return {_PREFIX + name: str(value) for name, value in values.items()}


def opened(file: ArchiveFile, topic: str, partition: int) -> tuple[pq.ParquetFile, Footer]:
    """Open a file and read its footer; close what is returned. Its bytes are not verified: `verify` does that.

    Raises:
        ArchiveError: it is damaged, or is not what its name and place say.
    """
    try:
        parquet = pq.ParquetFile(file.path, pre_buffer=False)
    except (pa.ArrowException, OSError) as e:
        raise damaged(file, e) from None
    try:
        return parquet, _footer(parquet, file, topic, partition)
    except BaseException:
        parquet.close()
        raise


def verify(file: ArchiveFile) -> None:
    """Compare a file's bytes with the checksum in its name.

    Raises:
        ArchiveError: they differ, or cannot be read.
    """
    try:
        with file.path.open("rb") as opened_file, mmap.mmap(opened_file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = zlib.crc32(data)
    except (OSError, ValueError) as e:
        raise damaged(file, e) from None
    if found != file.crc:
        raise damaged(file, f"the CRC-32 of its bytes is {found:08x}")


def damaged(file: ArchiveFile, why: object) -> ArchiveError:
    """Return the error of a file that cannot be read."""
    return ArchiveError(
        f"{file.path} is damaged: {why}",
        hint="restore it from a copy; or, if Kafka still has its offsets, move it and all later ones of its folder away "
        "and run `fluvial archive` again",
    )


def _footer(parquet: pq.ParquetFile, file: ArchiveFile, topic: str, partition: int) -> Footer:
    try:
        found = {k.decode(): v.decode() for k, v in (parquet.metadata.metadata or {}).items()}
        said = {name.removeprefix(_PREFIX): value for name, value in found.items() if name.startswith(_PREFIX)}
        footer = Footer(
            said["content"], said["topic"], said["topic_id"], int(said["partition"]), int(said["first_offset"]),
            int(said["next_offset"]), int(said["follows_offset"]), int(said["records"]),
        )  # fmt: skip
    except (KeyError, ValueError):
        raise damaged(file, "its footer is not that of an archive's file") from None
    if said.get("format") != FORMAT:
        raise ArchiveError(
            f"{file.path} has format {said.get('format')}, this version reads {FORMAT}", hint="upgrade fluvial"
        )
    here, there = (topic, partition, file.first, file.next), (footer.topic, footer.partition, footer.first, footer.next)
    if here != there:
        raise ArchiveError(
            f"{file.path} holds {footer.topic}[{footer.partition}] from {footer.first} to {footer.next - 1}",
            hint="put it back under its own name, in its own folder",
        )
    if parquet.metadata.num_rows != footer.rows:
        raise damaged(file, f"it has {parquet.metadata.num_rows} rows, not {footer.rows}")
    return footer


def check_chain(files: list[ArchiveFile], topic: str, partition: int) -> list[tuple[int, int]]:
    """Return the gaps that were accepted when the archive was written, as (first offset missing, offset after them).

    Raises:
        ArchiveError: a file is missing between two others.
    """
    gaps = []
    for a, b in pairwise(files):
        if a.next == b.first:
            continue
        parquet, footer = opened(b, topic, partition)
        parquet.close()
        if footer.follows != a.next:
            raise ArchiveError(
                f"{b.path.parent} has no file of the offsets {a.next} to {b.first - 1}",
                hint=f"restore the missing file; {b.path.name} was written after one that ended at {footer.follows - 1}",
            )
        gaps.append((a.next, b.first))
    return gaps
