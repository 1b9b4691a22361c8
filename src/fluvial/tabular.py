"""An Arrow table as aligned text, CSV, JSON lines, Parquet or an Arrow stream."""

import json
import math
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

Format = Literal["table", "csv", "json", "parquet", "arrow"]
BINARY: frozenset[Format] = frozenset({"parquet", "arrow"})
# What a reader of a terminal does not look at: where a row comes from, and its bucket.
PROVENANCE = frozenset({"generation", "source_partition", "source_offset", "window_end", "day", "month"})

LISTED = 5


def write(table: pa.Table, fmt: Format, out: BinaryIO) -> None:
    """Write a table; instants are RFC 3339 in UTC where the format has no type for them."""
    match fmt:
        case "table":
            out.write(aligned(table).encode())
        case "csv":
            pyarrow.csv.write_csv(_flat(table), out)
        case "json":
            for row in _plain(table).to_pylist():
                out.write(json.dumps({k: _finite(v) for k, v in row.items()}, ensure_ascii=False).encode() + b"\n")
        case "parquet":
            pyarrow.parquet.write_table(table, out, compression="zstd")
        case "arrow":
            with pyarrow.ipc.new_stream(out, table.schema) as stream:
                stream.write_table(table)


def aligned(table: pa.Table) -> str:
    """Return a table as text in columns: names, then rows; numbers to the right, at most six significant digits.

    Lists show their first five items; the other formats have them all.
    """
    shown = _plain(table)
    right = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in table.schema]
    cells = [[_text(v) for v in column.to_pylist()] for column in shown.columns]
    widths = [max([len(name), *map(len, column)]) for name, column in zip(shown.column_names, cells, strict=True)]
    lines = [_line(shown.column_names, widths, right)]
    lines += [_line(row, widths, right) for row in zip(*cells, strict=True)]
    return "\n".join(lines) + "\n"


def for_reading(table: pa.Table, constant: Sequence[str]) -> pa.Table:
    """Return the columns that a person wants to see: not the key that was asked for, nor a row's provenance."""
    return table.select([c for c in table.column_names if c not in PROVENANCE and c not in constant])


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(padded).rstrip()


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list():
            shown = ", ".join(_text(v) for v in value[:LISTED])
            return f"{shown} … {len(value) - LISTED} more" if len(value) > LISTED else shown
        case str() if len(value) > 5 and value.endswith(".000Z"):
            return value.removesuffix(".000Z") + "Z"
    return str(value)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table with instants and dates as text."""
    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            columns.append(pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ"))
        elif pa.types.is_date(column.type):
            columns.append(pc.strftime(column, "%Y-%m-%d"))
        else:
            columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _flat(table: pa.Table) -> pa.Table:
    """Return a plain table whose lists are JSON."""
    plain = _plain(table)
    columns = [
        pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in c.to_pylist()], pa.string())
        if pa.types.is_list(c.type)
        else c
        for c in plain.columns
    ]
    return pa.Table.from_arrays(columns, names=plain.column_names)


def _finite(value: Any) -> Any:
    """Return a value that JSON has; it has no NaN and no infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
