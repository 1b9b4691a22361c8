"""What the readers of files have in common: a file in chunks of rows, only the columns that are asked for."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from fluvial.errors import FluvialError
from fluvial.producers.rejections import Rejected
from fluvial.records import I64


class ImportFileError(FluvialError):
    """A file cannot be imported as it was asked for; nothing has been published."""


@dataclass(frozen=True, slots=True)
class Melted:
    """A measure column and the metric of its readings.

    With ``every_leaf`` it stands for all numbers below ``column`` ('' is the top) but those ``without``; their metrics
    are their paths from there.
    """

    metric: str
    column: str
    every_leaf: bool = False
    without: frozenset[str] = frozenset()

    def leaf(self, name: str) -> str | None:
        """Return the metric of a number at a path from the top, None when it is none of these."""
        below = name if not self.column else name.removeprefix(f"{self.column}.")
        return None if name in self.without or (self.column and below == name) else below


@dataclass(frozen=True, slots=True)
class Measure:
    """The cells of one melted column. ``sparse``: what a row does not have is absent there, not null."""

    metric: str
    cells: pa.Array
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """n rows of a file.

    ``columns`` has an array of n cells per asked-for column; ``melted`` has n cells per measure. ``line`` are
    line numbers from 1 (rows in Parquet). ``rejected`` are lines that are not even rows. ``raw(i)`` is row i as it
    stands in the file. ``lines`` counts what was read, blank lines aside; ``position`` is bytes of the file so far.
    """

    columns: Mapping[str, pa.Array]
    melted: Sequence[Measure]
    line: I64
    rejected: Sequence[Rejected]
    raw: Callable[[int], str]
    lines: int
    position: int

    def __len__(self) -> int:
        return len(self.line)


class Source(Protocol):
    """A file of one format."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return those columns that the file does not have."""
        ...

    def available(self) -> list[str]:
        """Return the names that can be asked for, for people."""
        ...

    def may_have(self, column: str) -> bool:
        """Whether rows can have a column; false when it is certain that none has."""
        ...

    def last_name(self, column: str) -> str:
        """Return the last component of a column's path: the metric of its readings."""
        ...

    def leaves(self, prefix: str) -> list[str]:
        """Return the numeric columns below a prefix ('' is all); empty where there are none."""
        ...

    def chunks(self, columns: Sequence[str], melted: Sequence[Melted]) -> Iterator[Chunk]:
        """Read the file from its start."""
        ...


class Blocks:
    """The bytes of a plain or gzipped file in blocks; ``position`` counts those of the file itself."""

    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        self._raw = path.open("rb")
        packed = self._raw.read(2) == b"\x1f\x8b"
        self._raw.seek(0)
        self._file = cast(BufferedReader, gzip.GzipFile(fileobj=self._raw)) if packed else self._raw
        self.position = 0
        self.damage: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Yield blocks; a damaged gzip stream ends early and leaves its story in ``damage``."""
        with self._raw:
            while self.damage is None and (block := self._block()):
                self.position = self._raw.tell()
                yield block

    def _block(self) -> bytes:
        parts: list[bytes] = []
        left = self._size
        try:
            # read() would lose what comes before the damage.
            while left and (part := self._file.read1(left)):
                parts.append(part)
                left -= len(part)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            self.damage = f"the compressed file is damaged from here on: {e}"
        return b"".join(parts)


def damaged(line: int, story: str) -> Rejected:
    """Return the entry for a file that could not be read to its end."""
    return Rejected(line, story, "")
