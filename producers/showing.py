"""Events as text, for a person who wants to see what an import would publish."""

from collections.abc import Mapping
from typing import Any

from fluvial.producers.building import Built
from fluvial.producers.fields import Field, fields_of
from fluvial.producers.times import iso
from fluvial.records import Column, DoubleLists, Doubles, Longs, Spans, StringLists

WIDEST = 40


def shown(built: Built, schema: Mapping[str, Any], events: int) -> list[str]:
    """Return a header and the first events, in columns."""
    n = min(events, len(built))
    fields = fields_of(schema)
    table = [[f.name for f in fields], *([_cell(built.columns[f.name], f, i) for f in fields] for i in range(n))]
    widths = [max(len(row[i]) for row in table) for i in range(len(fields))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _cell(column: Column, field: Field, row: int) -> str:
    text: str
    match column:
        case Spans():
            value = column.bytes_at(row)
            text = "null" if value is None else value.decode(errors="replace")
        case Longs():
            text = "null" if not column.valid[row] else str(column.values[row])
            if field.kind == "time" and column.valid[row]:
                text = iso(int(column.values[row]), field.per_second)
        case Doubles():
            text = "null" if not column.valid[row] else f"{column.values[row]:.15g}"
        case StringLists() | DoubleLists():
            a, b = int(column.offsets[row]), int(column.offsets[row + 1])
            text = f"[{', '.join(_item(column, i) for i in range(a, b))}]"
    text = text.replace("\n", "⏎")
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _item(column: StringLists | DoubleLists, place: int) -> str:
    if isinstance(column, DoubleLists):
        return f"{column.items[place]:.15g}"
    return (column.items.bytes_at(place) or b"").decode(errors="replace")
