"""CSV files: our own loop finds the rows, so that each keeps its line number and text; Arrow parses the good ones."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from fluvial.producers.chunks import Blocks, Chunk, ImportFileError, Measure, Melted, damaged
from fluvial.producers.csv_rows import UNCLOSED, split_rows
from fluvial.producers.rejections import Rejected
from fluvial.records import I64

BLOCK_BYTES = 4 << 20
LONGEST_ROW = 1 << 20
LONGEST_LINE = 64 << 20
_BOM = b"\xef\xbb\xbf"


class CsvFile:
    """A CSV file (RFC 4180, UTF-8, a header line), also gzipped. Empty cells are null, quoted empty ones are not.

    Raises:
        ImportFileError: it is empty, or its header is not UTF-8.
    """

    def __init__(self, path: Path, delimiter: str = ",") -> None:
        self._path = path
        self._delimiter = delimiter
        self._header = self._read_header()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return those columns that the header does not name.

        Raises:
            ImportFileError: it names one of them more than once.
        """
        for c in columns:
            if self._header.count(c) > 1:
                raise ImportFileError(f"{self._path}: the header names column {c!r} twice", hint="rename one of them")
        return [c for c in columns if c not in self._header]

    def available(self) -> list[str]:
        """Return the names in the header."""
        return list(self._header)

    def may_have(self, column: str) -> bool:
        """Whether the header names a column."""
        return column in self._header

    def last_name(self, column: str) -> str:
        """Return the column's name."""
        return column

    def leaves(self, prefix: str) -> list[str]:
        """Return nothing: the cells of a CSV file have no types, so measures have to be named."""
        return []

    def chunks(self, columns: Sequence[str], melted: Sequence[Melted]) -> Iterator[Chunk]:
        """Read the file from its start."""
        blocks = Blocks(self._path, BLOCK_BYTES)
        rest, line, header_seen = b"", 1, False
        stream = iter(blocks)
        block = next(stream, b"")
        rest = block.removeprefix(_BOM)
        while True:
            block = next(stream, b"")
            final = not block
            data = np.frombuffer(rest, np.uint8)
            start, end, fields, at_line, behind, lines = split_rows(data, ord(self._delimiter), final, LONGEST_ROW)
            if not header_seen and len(start):
                start, end, fields, at_line = start[1:], end[1:], fields[1:], at_line[1:]
                header_seen = True
            if len(start):
                yield self._chunk(rest, (start, end, fields, at_line + line), columns, melted, blocks.position)
            line += lines
            rest = rest[behind:] + block
            too_long = len(rest) > LONGEST_LINE
            if final or too_long:
                break
        story = "no line ends within 64 MB from here on" if too_long else blocks.damage
        if story:
            lost = [damaged(line, story)]
            yield Chunk(_nothing(columns), [], np.zeros(0, np.int64), lost, str, 1, blocks.position)

    def _chunk(
        self,
        data: bytes,
        rows: tuple[I64, I64, I64, I64],
        columns: Sequence[str],
        melted: Sequence[Melted],
        position: int,
    ) -> Chunk:
        start, end, fields, line = rows
        good = fields == len(self._header)
        rejected = [
            Rejected(int(line[i]), self._misfit(int(fields[i])), _text(data[start[i] : end[i]]))
            for i in np.flatnonzero(~good).tolist()
        ]
        if good.all():
            clean = data[start[0] : end[-1]]
        else:
            starts, ends = start[good].tolist(), end[good].tolist()
            clean = b"\n".join([data[a:b] for a, b in zip(starts, ends, strict=True)])
        start, end, line = start[good], end[good], line[good]
        names = list(dict.fromkeys([*columns, *(m.column for m in melted)]))
        cells = self._parse(clean, names, len(line))
        return Chunk(
            {c: cells[c] for c in columns},
            [Measure(m.metric, cells[m.column]) for m in melted],
            line,
            rejected,
            lambda i: _text(data[start[i] : end[i]]),
            len(line) + len(rejected),
            position,
        )

    def _parse(self, clean: bytes, names: Sequence[str], rows: int) -> dict[str, pa.Array]:
        if not rows or not names:
            return _nothing(names) if not rows else {}
        place = {name: f"f{self._header.index(name)}" for name in names}
        table = arrow_csv.read_csv(
            pa.BufferReader(clean),
            read_options=arrow_csv.ReadOptions(
                column_names=[f"f{i}" for i in range(len(self._header))], block_size=len(clean) + 1, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(place.values(), pa.binary()),
                include_columns=list(dict.fromkeys(place.values())),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        assert table.num_rows == rows, "our rows are Arrow's rows"
        return {name: table[column].combine_chunks() for name, column in place.items()}

    def _misfit(self, fields: int) -> str:
        if fields == UNCLOSED:
            return "a quote is opened and not closed"
        return f"{fields} fields where the header has {len(self._header)}"

    def _read_header(self) -> list[str]:
        head = b""
        for block in Blocks(self._path, 1 << 16):
            head += block
            first = head.removeprefix(_BOM).lstrip(b"\r\n")
            data = np.frombuffer(first, np.uint8)
            start, end, *_ = split_rows(data, ord(self._delimiter), False, LONGEST_ROW)
            if len(start) or len(head) > LONGEST_LINE:
                break
        else:
            first = head.removeprefix(_BOM).lstrip(b"\r\n")
            start, end, *_ = split_rows(np.frombuffer(first, np.uint8), ord(self._delimiter), True, LONGEST_ROW)
        if not len(start):
            raise ImportFileError(f"{self._path} has no header line", hint="the first line names the columns")
        try:
            line = first[start[0] : end[0]].decode()
        except UnicodeDecodeError:
            raise ImportFileError(
                f"{self._path}: the header is not UTF-8", hint="convert the file, e.g. with iconv"
            ) from None
        return next(csv.reader([line], delimiter=self._delimiter))


def _nothing(names: Sequence[str]) -> dict[str, pa.Array]:
    return {name: pa.array([], pa.large_string()) for name in names}


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
