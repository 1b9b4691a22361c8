"""Parquet files, read in batches; fields inside of structs are addressed by dotted paths."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fluvial.producers.chunks import Chunk, ImportFileError, Measure, Melted, damaged

BATCH_ROWS = 65_536


class ParquetFile:
    """A Parquet file. Its rows are numbered from 1 where other files have lines.

    Raises:
        ImportFileError: it is not Parquet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow
                self._rows = file.metadata.num_rows
        except (pa.ArrowInvalid, OSError) as e:
            raise ImportFileError(
                f"{path} is not a Parquet file: {e}", hint="say --format if it is another one"
            ) from None
        self._columns = dict(_leaves(self._schema))

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return those columns that the schema does not have."""
        return [c for c in columns if c not in self._columns]

    def available(self) -> list[str]:
        """Return the dotted paths of all fields."""
        return list(self._columns)

    def may_have(self, column: str) -> bool:
        """Whether the schema has a column."""
        return column in self._columns

    def last_name(self, column: str) -> str:
        """Return the name of the innermost field."""
        names, at = self._schema, column
        while True:
            head = next(h for h in _heads(at) if h in {f.name for f in names})
            if head == at:
                return head
            names, at = names.field(head).type, at[len(head) + 1 :]

    def leaves(self, prefix: str) -> list[str]:
        """Return the numeric fields below a prefix ('' is all)."""
        return [
            name
            for name, kind in self._columns.items()
            if (not prefix or name.startswith(prefix + "."))
            and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
        ]

    def chunks(self, columns: Sequence[str], melted: Sequence[Melted]) -> Iterator[Chunk]:
        """Read the file from its start."""
        melted = [part for m in melted for part in self._expanded(m)]
        names = list(dict.fromkeys([*columns, *(m.column for m in melted)]))
        size, row = self._path.stat().st_size, 0
        try:
            with pq.ParquetFile(self._path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=self._tops(names)):
                    row += len(batch)
                    yield _chunk(batch, row, columns, melted, size * row // max(self._rows, 1))
        except (pa.ArrowInvalid, pa.ArrowException, OSError) as e:
            empty = {c: pa.array([], pa.null()) for c in columns}
            lost = [damaged(row + 1, f"the file is damaged from here on: {e}")]
            yield Chunk(empty, [], np.zeros(0, np.int64), lost, str, 1, size)

    def _expanded(self, m: Melted) -> list[Melted]:
        if not m.every_leaf:
            return [m]
        named = [(m.leaf(column), column) for column in self.leaves(m.column)]
        return [Melted(metric, column) for metric, column in named if metric is not None]

    def _tops(self, names: Sequence[str]) -> list[str]:
        """Return the top-level fields that hold some columns."""
        return [f.name for f in self._schema if any(n == f.name or n.startswith(f.name + ".") for n in names)]


def _chunk(batch: pa.RecordBatch, last: int, columns: Sequence[str], melted: Sequence[Melted], position: int) -> Chunk:
    return Chunk(
        {c: _dig(batch, c) for c in columns},
        [Measure(m.metric, _dig(batch, m.column)) for m in melted],
        np.arange(last - len(batch) + 1, last + 1),
        [],
        lambda i: json.dumps(batch.slice(i, 1).to_pylist()[0], default=str),
        len(batch),
        position,
    )


def _dig(batch: pa.RecordBatch, column: str) -> pa.Array:
    names = set(batch.schema.names)
    head = next(h for h in _heads(column) if h in names)
    array, rest = batch.column(head), column[len(head) + 1 :]
    while rest:
        fields = {array.type.field(i).name for i in range(array.type.num_fields)}
        head = next(h for h in _heads(rest) if h in fields)
        array, rest = pc.struct_field(array, head), rest[len(head) + 1 :]
    return array


def _heads(column: str) -> Iterator[str]:
    """Yield the whole name, then its beginnings up to each dot, longest first: a name may have dots itself."""
    yield column
    at = column.rfind(".")
    while at > 0:
        yield column[:at]
        at = column.rfind(".", 0, at)


def _leaves(fields: Sequence[pa.Field] | pa.Schema | pa.StructType) -> Iterator[tuple[str, pa.DataType]]:
    for f in fields:
        yield f.name, f.type
        if pa.types.is_struct(f.type):
            yield from ((f"{f.name}.{name}", kind) for name, kind in _leaves(f.type))
