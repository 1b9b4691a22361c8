"""Compile a writer's and a reader's schema into a program of `decode_kernel`, by Avro's resolution rules."""

import struct
from dataclasses import dataclass, field
from typing import Any

from fluvial.errors import SchemaError
from fluvial.schemas import decode_kernel as k
from fluvial.schemas.layout import ColumnSpec, Layout
from fluvial.schemas.shapes import Field, Shape, min_width, same_name

MAX_INSTRUCTIONS = 50_000
_PROMOTIONS = {
    "int": frozenset({"int", "long", "float", "double"}),
    "long": frozenset({"long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "string": frozenset({"string", "bytes"}),
    "bytes": frozenset({"string", "bytes"}),
}


def matches(writer: Shape, reader: Shape) -> bool:
    """Whether a writer's not-union type can be read as a reader's not-union type."""
    if writer.kind in {"record", "enum", "fixed"}:
        sizes = writer.kind != "fixed" or writer.size == reader.size
        return writer.kind == reader.kind and same_name(writer, reader) and sizes
    if writer.kind in {"array", "map"}:
        return writer.kind == reader.kind
    return reader.kind in _PROMOTIONS.get(writer.kind, {writer.kind})


@dataclass(slots=True)
class Program:
    """Programs of any number of writers, one after another, with the constants (symbols, defaults) that they use.

    ``code`` is the kernel's array, ``places`` the reader's or writer's field of each instruction by its position.
    """

    layout: Layout
    code: list[int] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    places: dict[int, str] = field(default_factory=dict)
    default_items: int = 0
    uses_text_constants: bool = False
    _at: str = ""
    _start: int = 0
    _loops: int = 0

    def add(self, writer: Shape, reader: Shape) -> int:
        """Append the program that reads the writer's data as the reader's record; return its entry.

        Raises:
            SchemaError: a field without default is missing, or the program would be too long or nest too deeply.
        """
        entry = self._start = len(self.code)
        self._at, self._loops = "", 0
        try:
            self._top(writer, reader)
        except SchemaError:
            del self.code[entry:]
            raise
        self._emit(k.END)
        return entry

    def add_skip(self, writer: Shape) -> int:
        """Append a program that only checks the structure of the writer's data; return its entry."""
        entry = self._start = len(self.code)
        self._at, self._loops = "", 0
        self._skip(writer)
        self._emit(k.END)
        return entry

    def _emit(self, op: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        at = len(self.code)
        if at - self._start > MAX_INSTRUCTIONS * k.WIDTH:
            raise SchemaError("a schema is too large to compile", hint=f"the limit is {MAX_INSTRUCTIONS:,} steps")
        self.code += (op, a, b, c)
        self.places[at] = self._at
        return at

    def _table(self, values: list[int]) -> int:
        """Place a table behind a jump over it and return where it begins."""
        jump = self._emit(k.JUMP)
        at = len(self.code)
        self.code += values + [0] * (-len(values) % k.WIDTH)
        self.code[jump + 1] = len(self.code)
        return at

    def _constant(self, text: bytes) -> int:
        found = self.constants.find(text)
        if found < 0:
            found = len(self.constants)
            self.constants += text
        return found

    def _top(self, writer: Shape, reader: Shape) -> None:
        if writer.kind == "union":
            self._branches(writer, lambda branch: self._top(branch, reader))
        elif writer.kind == "record" and same_name(writer, reader):
            self._record(writer, reader)
        else:
            self._emit(k.FAIL, k.SCHEMA_MISMATCH)

    def _record(self, writer: Shape, reader: Shape) -> None:
        by_name = {f.name: i for i, f in enumerate(reader.fields)}
        by_alias = {alias: i for i, f in enumerate(reader.fields) for alias in f.aliases}
        missing = set(range(len(reader.fields)))
        for f in writer.fields:
            self._at = f.name
            i = by_name.get(f.name, by_alias.get(f.name, -1))
            if i in missing:
                missing.discard(i)
                self._read(f.shape, reader.fields[i].shape, self.layout.columns[i])
            else:
                self._skip(f.shape)
        for i in sorted(missing):
            self._at = reader.fields[i].name
            self._default(reader.fields[i], self.layout.columns[i])

    def _branches(self, writer: Shape, emit: Any) -> None:
        table = self._table([0] * len(writer.branches))
        self._emit(k.UNION, len(writer.branches), table)
        jumps = []
        for i, branch in enumerate(writer.branches):
            self.code[table + i] = len(self.code)
            emit(branch)
            jumps.append(self._emit(k.JUMP))
        for at in jumps:
            self.code[at + 1] = len(self.code)

    def _read(self, writer: Shape, reader: Shape, column: ColumnSpec) -> None:
        kinds = [b.kind for b in writer.branches]
        if writer.kind == "union" and len(kinds) == 2 and "null" in kinds and column.null_index >= 0:
            null = kinds.index("null")
            option = self._emit(k.OPTION, null)
            self._read(writer.branches[1 - null], reader, column)
            jump = self._emit(k.JUMP)
            self.code[option + 2] = len(self.code)
            self._null(column)
            self.code[jump + 1] = len(self.code)
        elif writer.kind == "union":
            self._branches(writer, lambda branch: self._read(branch, reader, column))
        elif writer.kind == "null":
            self._null(column)
        elif column.kind in ("strings", "doubles"):
            self._list(writer, column)
        elif not matches(writer, column.item):
            self._emit(k.FAIL, k.SCHEMA_MISMATCH)
        else:
            self._scalar(writer, column)

    def _null(self, column: ColumnSpec) -> None:
        if column.null_index < 0:
            self._emit(k.FAIL, k.NULL_VALUE)
        else:
            op = {"long": k.NULL_LONG, "double": k.NULL_DOUBLE, "span": k.NULL_SPAN}[column.kind]
            self._emit(op, column.slot)

    def _scalar(self, writer: Shape, column: ColumnSpec) -> None:
        slot = column.slot
        match writer.kind:
            case "boolean":
                self._emit(k.BOOLEAN, slot)
            case "int" | "long":
                self._emit(k.LONG if column.kind == "long" else k.LONG_AS_DOUBLE, slot)
            case "float":
                self._emit(k.FLOAT, slot)
            case "double":
                self._emit(k.DOUBLE, slot)
            case "string" | "bytes":
                self._emit(k.SPAN, slot, _is_text(writer, column.item))
            case "fixed":
                self._emit(k.FIXED, slot, writer.size)
            case "enum":
                self._emit_enum(k.ENUM, slot, writer, column.item)

    def _emit_enum(self, op: int, slot: int, writer: Shape, reader: Shape) -> None:
        entries: list[int] = []
        for symbol in writer.symbols:
            read = symbol if symbol in reader.symbols else reader.default_symbol
            text = (read or "").encode()
            entries += (self._constant(text), len(text) if read else -1)
        self.uses_text_constants |= op == k.ITEM_ENUM
        self._emit(op, slot, self._table(entries), len(writer.symbols))

    def _list(self, writer: Shape, column: ColumnSpec) -> None:
        if writer.kind != "array" or writer.items is None:
            self._emit(k.FAIL, k.SCHEMA_MISMATCH)
            return
        items = writer.items
        self._loop(min_width(items), lambda: self._item(items, column))

    def _loop(self, width: int, body: Any) -> None:
        if width == 0:
            raise SchemaError(
                f"field {self._at}: items that take no bytes", hint="a few bytes could claim any number of them"
            )
        if self._loops == k.MAX_LOOPS:
            raise SchemaError(
                f"field {self._at}: arrays and maps nested too deeply", hint=f"{k.MAX_LOOPS} levels are the limit"
            )
        self._loops += 1
        self._emit(k.LOOP)
        top = self._emit(k.NEXT, 0, width)
        body()
        self._emit(k.JUMP, top)
        self.code[top + 1] = len(self.code)
        self._loops -= 1

    def _item(self, writer: Shape, column: ColumnSpec) -> None:
        if writer.kind == "union":
            self._branches(writer, lambda branch: self._item(branch, column))
        elif not matches(writer, column.item):
            self._emit(k.FAIL, k.NULL_VALUE if writer.kind == "null" else k.SCHEMA_MISMATCH)
        elif writer.kind == "enum":
            self._emit_enum(k.ITEM_ENUM, column.slot, writer, column.item)
        elif column.kind == "strings":
            self._emit(k.ITEM_SPAN, column.slot, _is_text(writer, column.item))
        else:
            ops = {"double": k.ITEM_DOUBLE, "float": k.ITEM_FLOAT}
            self._emit(ops.get(writer.kind, k.ITEM_LONG_AS_DOUBLE), column.slot)

    def _skip(self, writer: Shape) -> None:
        match writer.kind:
            case "null":
                pass
            case "int" | "long":
                self._emit(k.SKIP_VARINT)
            case "enum":
                self._emit(k.SKIP_ENUM, len(writer.symbols))
            case "string" | "bytes":
                self._emit(k.SKIP_SPAN)
            case "union":
                self._branches(writer, self._skip)
            case "record":
                for f in writer.fields:
                    self._skip(f.shape)
            case "array" | "map" if writer.items is not None:
                items, keyed = writer.items, writer.kind == "map"
                self._loop(min_width(items) + keyed, lambda: self._skip_item(items, keyed))
            case _:
                self._emit(k.SKIP, 1 if writer.kind == "boolean" else min_width(writer))

    def _skip_item(self, item: Shape, keyed: bool) -> None:
        if keyed:
            self._emit(k.SKIP_SPAN)
        self._skip(item)

    def _default(self, f: Field, column: ColumnSpec) -> None:
        if not f.has_default:
            raise SchemaError(
                f"field {f.name} is not in the writer's schema and has no default",
                hint="give the reader's field a default or register a compatible schema",
            )
        if column.kind == "strings":
            for item in f.default:
                text = _as_bytes(item, column.item)
                self._emit(k.ITEM_CONST_SPAN, column.slot, self._constant(text), len(text))
            self.uses_text_constants |= len(f.default) > 0
            self.default_items = max(self.default_items, len(f.default))
        elif column.kind == "doubles":
            for item in f.default:
                self._emit(k.ITEM_CONST_DOUBLE, column.slot, _bits(item))
            self.default_items = max(self.default_items, len(f.default))
        elif f.default is None:
            self._null(column)
        elif column.kind == "long":
            self._emit(k.CONST_LONG, column.slot, int(f.default))
        elif column.kind == "double":
            self._emit(k.CONST_DOUBLE, column.slot, _bits(f.default))
        else:
            text = _as_bytes(f.default, column.item)
            self.uses_text_constants |= len(text) > 0 and not column.is_enum
            self._emit(k.CONST_SPAN, column.slot, self._constant(text), len(text))


def _is_text(writer: Shape, reader: Shape) -> int:
    return int(writer.kind == "string" or reader.kind == "string")


def _bits(number: float | str) -> int:
    return int(struct.unpack("<q", struct.pack("<d", float(number)))[0])


def _as_bytes(default: str, shape: Shape) -> bytes:
    return default.encode("latin-1" if shape.kind in {"bytes", "fixed"} else "utf-8")


def describe(code: int, place: str) -> tuple[str, str]:
    """Return the error type and message of a kernel's error code at a field."""
    where = f"field {place}: " if place else ""
    kind, text = _ERRORS[code]
    return kind, where + text


_ERRORS = {
    k.TRUNCATED: ("Truncated", "the bytes end inside a value"),
    k.VARINT_TOO_LONG: ("VarintTooLong", "an integer of more than 64 bits"),
    k.BAD_LENGTH: ("BadLength", "a negative length"),
    k.BAD_UNION_INDEX: ("BadUnionIndex", "no such branch in the writer's union"),
    k.BAD_ENUM: ("BadEnum", "no such symbol in the writer's enum"),
    k.UNKNOWN_SYMBOL: ("UnknownSymbol", "the enum's symbol is unknown to the reader, whose enum has no default"),
    k.INVALID_UTF8: ("InvalidUtf8", "a string that is not UTF-8"),
    k.TOO_MANY_ITEMS: ("TooManyItems", "more items than the bytes can hold"),
    k.TRAILING_BYTES: ("TrailingBytes", "bytes left over behind the datum"),
    k.BAD_BLOCK_SIZE: ("BadBlockSize", "a block whose size is not that of its items"),
    k.NULL_VALUE: ("NullValue", "null where the reader's field is not nullable"),
    k.SCHEMA_MISMATCH: ("SchemaMismatch", "the writer's type cannot be read as the reader's"),
}
