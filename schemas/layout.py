"""Which column each field of a reader's (or encoder's) schema becomes."""

from dataclasses import dataclass
from typing import Literal

from fluvial.errors import SchemaError
from fluvial.schemas.shapes import Shape

Kind = Literal["long", "double", "span", "strings", "doubles"]
NUMBERS = frozenset({"int", "long", "float", "double"})


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """The column of one field: its kind, its slot among the columns of that kind, and how its datum is written.

    ``item`` is the not-null shape of the value (of the list's items for lists); ``null_index`` the place of null in the
    field's union, −1 when the field can't be null. ``native`` is false where a datum of the field has another form than
    ``item`` (decimals, unions of several number types, nullable lists).
    """

    name: str
    kind: Kind
    slot: int
    item: Shape
    null_index: int
    native: bool
    is_enum: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns of a record, in field order, and how many there are of each kind."""

    columns: tuple[ColumnSpec, ...]

    def count(self, kind: Kind) -> int:
        """Return the number of columns of one kind."""
        return sum(c.kind == kind for c in self.columns)


def layout_of(record: Shape) -> Layout:
    """Lay a record's fields out as columns.

    Raises:
        SchemaError: not a record, or a field has no columnar form.
    """
    if record.kind != "record":
        raise SchemaError(f"a schema of type {record.kind}", hint="events and results are records")
    columns: list[ColumnSpec] = []
    slots: dict[Kind, int] = {}
    for f in record.fields:
        kind, item, null_index, native = _column(f"{record.name}.{f.name}", f.shape)
        slot = slots.get(kind, 0)
        slots[kind] = slot + 1
        columns.append(ColumnSpec(f.name, kind, slot, item, null_index, native, item.kind == "enum"))
    return Layout(tuple(columns))


def _column(where: str, shape: Shape) -> tuple[Kind, Shape, int, bool]:
    if shape.kind != "union":
        kind, item, native = _plain(where, shape)
        return kind, item, -1, native
    null_index = next((i for i, b in enumerate(shape.branches) if b.kind == "null"), -1)
    rest = [b for b in shape.branches if b.kind != "null"]
    if len(rest) == 1 and null_index < 0:
        kind, item, _ = _plain(where, rest[0])
        return kind, item, -1, False
    if len(rest) == 1:
        kind, item, native = _plain(where, rest[0])
        if kind in ("strings", "doubles"):
            return kind, item, -1, False
        return kind, item, null_index, native and len(shape.branches) == 2
    if rest and all(b.kind in NUMBERS for b in rest):
        return "double", Shape("double"), null_index, False
    raise SchemaError(
        f"{where}: a union of {', '.join(b.kind for b in shape.branches)} has no columnar form",
        hint="use one type, or one type and null",
    )


def _plain(where: str, shape: Shape) -> tuple[Kind, Shape, bool]:
    if shape.logical == "decimal":
        return "double", Shape("double"), False
    match shape.kind:
        case "boolean" | "int" | "long":
            return "long", shape, True
        case "float" | "double":
            return "double", shape, True
        case "string" | "bytes" | "fixed" | "enum":
            return "span", shape, True
        case "array" if shape.items is not None and shape.items.logical == "":
            if shape.items.kind in {"string", "bytes", "enum"}:
                return "strings", shape.items, True
            if shape.items.kind in {"float", "double"}:
                return "doubles", shape.items, True
    inner = f" of {shape.items.kind}" if shape.items else ""
    raise SchemaError(
        f"{where}: {shape.kind}{inner} has no columnar form",
        hint="fields are numbers, strings, bytes, enums, and arrays of strings or doubles",
    )
