"""From a chunk of a file to the columns of events, by an import's plan. Pure: the same chunk gives the same events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from fluvial.producers.cells import column_of, numbers_of
from fluvial.producers.chunks import Chunk, Measure
from fluvial.producers.import_plan import METRIC, VALUE, ImportPlan, default_column
from fluvial.producers.rejections import Faults, Rejected
from fluvial.records import I64, Column, Doubles, Mask, Spans, take
from fluvial.schemas.columns import repeated, spans_from_strings


@dataclass(frozen=True, slots=True)
class Built:
    """n events; ``row`` is each one's row in the chunk.

    ``lines`` were read; of these ``rejected`` became nothing and ``empty`` ones had no measure. ``nulls`` counts null
    measures.
    """

    columns: Mapping[str, Column]
    row: I64
    rejected: Sequence[Rejected]
    lines: int
    empty: int
    nulls: int

    def __len__(self) -> int:
        return len(self.row)


def build(chunk: Chunk, plan: ImportPlan) -> Built:
    """Return the events of a chunk, line by line, the measures of a line in the order of the plan.

    A line with any bad cell is rejected as a whole, so that it can be mended and imported again.
    """
    n = len(chunk)
    faults = Faults(n)
    columns: dict[str, Column] = {}
    for f in plan.fields:
        if f.name in plan.columns:
            source = plan.columns[f.name]
            columns[f.name] = column_of(chunk.columns[source], f, plan.times, plan.nulls, faults, source)
        elif f.name in plan.hashes:
            columns[f.name] = hashed([chunk.columns[c] for c in plan.hashes[f.name]])
        elif not (plan.melt and f.name in (METRIC, VALUE)):
            one = plan.constants[f.name] if f.name in plan.constants else default_column(f)
            columns[f.name] = take(one, np.zeros(n, np.int64))
    for name in sorted(plan.not_empty & columns.keys()):
        column = columns[name]
        if isinstance(column, Spans):
            faults.mark(column.length == 0, f"{name}: empty")
    measures = [numbers_of(m.cells, plan.nulls, faults, f"{VALUE} (column {m.metric})") for m in chunk.melted]
    good = faults.good
    bad = [Rejected(int(chunk.line[i]), faults.reason(i), chunk.raw(i)) for i in faults.bad_rows().tolist()]
    if plan.melt:
        row, melted, nulls, empty = _melt(chunk.melted, measures, good)
    else:
        row, melted, nulls, empty = np.flatnonzero(good), {}, 0, 0
    if len(row) < n or plan.melt:
        columns = {name: take(c, row) for name, c in columns.items()}
    ordered = {f.name: melted[f.name] if f.name in melted else columns[f.name] for f in plan.fields}
    return Built(ordered, row, sorted([*chunk.rejected, *bad], key=lambda r: r.line), chunk.lines, empty, nulls)


def _melt(
    melted: Sequence[Measure], measures: Sequence[Doubles], good: Mask
) -> tuple[I64, dict[str, Column], int, int]:
    """Return (row, {metric, value}, null measures, rows without any), one event per measure that is not null."""
    n, m = len(good), len(measures)
    sparse = np.array([measure.sparse for measure in melted], np.bool_)
    values = np.empty((n, m))
    valid = np.empty((n, m), np.bool_)
    for i, measure in enumerate(measures):
        values[:, i], valid[:, i] = measure.values, measure.valid
    valid &= good[:, None]
    row, which = np.nonzero(valid)
    names = spans_from_strings([measure.metric for measure in melted])
    columns: dict[str, Column] = {
        METRIC: names.take(which) if m else repeated("", 0),
        VALUE: Doubles(values[row, which], np.ones(len(row), np.bool_)),
    }
    nulls = int((~valid[good][:, ~sparse]).sum())
    return row.astype(np.int64), columns, nulls, int((good & ~valid.any(axis=1)).sum())


def hashed(columns: Sequence[pa.Array]) -> Spans:
    """Return a name for each row's cells: BLAKE2b, 128 bits, in hexadecimal.

    Over each cell's text preceded by its length; null counts as −1. Equal cells give equal names in every import.
    """
    texts = [
        [None if v is None else v if isinstance(v, bytes) else _written(v) for v in c.to_pylist()] for c in columns
    ]
    names = []
    for cells in zip(*texts, strict=True):
        parts = [b"-1:" if c is None else b"%d:%s" % (len(c), c) for c in cells]
        names.append(blake2b(b"".join(parts), digest_size=16).hexdigest())
    return spans_from_strings(names)


def _written(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else str(value)).encode(errors="surrogatepass")
