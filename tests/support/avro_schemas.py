"""Hypothesis strategies: a writer's schema, a reader's schema derived from it, and data of the writer's."""

from typing import Any

from hypothesis import strategies as st

PROMOTED = {
    "int": ["int", "long", "float", "double"],
    "long": ["long", "float", "double"],
    "float": ["float", "double"],
    "string": ["string", "bytes"],
    "bytes": ["bytes", "string"],
}
SYMBOLS = ["ON", "OFF", "UNSURE", "OFFLINE"]
COLUMN_TYPES = [
    *("boolean", "int", "long", "float", "double", "string", "bytes"),
    *("millis", "enum", "fixed", "texts", "numbers"),
]
NOT_TEXT = [b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f"]
TEXT = st.text(max_size=12) | st.sampled_from(["", "é", "漢字", "😀", "a" * 200])


class Names:
    """Fresh names for the named types of one schema."""

    def __init__(self) -> None:
        self.used = 0

    def next(self) -> str:
        self.used += 1
        return f"T{self.used}"


@st.composite
def column_types(draw: st.DrawFn, names: Names) -> Any:
    """A type that has a columnar form, not null."""
    kind = draw(
        st.sampled_from(
            [
                "boolean",
                "int",
                "long",
                "float",
                "double",
                "string",
                "bytes",
                "millis",
                "enum",
                "fixed",
                "texts",
                "numbers",
            ]
        )
    )
    match kind:
        case "millis":
            return {"type": "long", "logicalType": "timestamp-millis"}
        case "enum":
            symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
            return {"type": "enum", "name": names.next(), "symbols": symbols}
        case "fixed":
            return {"type": "fixed", "name": names.next(), "size": draw(st.integers(1, 9))}
        case "texts":
            return {"type": "array", "items": draw(st.sampled_from(["string", "bytes"]))}
        case "numbers":
            return {"type": "array", "items": draw(st.sampled_from(["int", "long", "float", "double"]))}
    return kind


@st.composite
def any_types(draw: st.DrawFn, names: Names, depth: int = 0) -> Any:
    """Any type at all that takes at least a byte: what a reader may have to skip."""
    nested = ["map", "array", "record", "union"] if depth < 3 else []
    match draw(st.sampled_from(["column", *nested])):
        case "map":
            return {"type": "map", "values": draw(any_types(names, depth + 1))}
        case "array":
            return {"type": "array", "items": draw(any_types(names, depth + 1))}
        case "record":
            inner = draw(st.lists(any_types(names, depth + 1), min_size=1, max_size=3))
            fields = [{"name": f"g{i}", "type": t} for i, t in enumerate(inner)]
            return {"type": "record", "name": names.next(), "fields": fields}
        case "union":
            return draw(st.permutations(["null", "string", "long", "double"]))
    return draw(column_types(names))


def _reader_type(draw: st.DrawFn, writer: Any) -> Any:
    if isinstance(writer, str):
        return draw(st.sampled_from(PROMOTED.get(writer, [writer])))
    if writer["type"] == "array":
        items = writer["items"]
        to = {"string": ["string", "bytes"], "bytes": ["bytes", "string"], "float": ["float", "double"]}
        return {"type": "array", "items": draw(st.sampled_from(to.get(items, ["double"])))}
    if writer["type"] == "enum":
        symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
        default = {"default": symbols[0]} if draw(st.booleans()) else {}
        return {**writer, "symbols": symbols, **default}
    return writer


def _default(draw: st.DrawFn, kind: Any) -> Any:
    if isinstance(kind, dict):
        match kind["type"]:
            case "array":
                item = st.sampled_from([1.5, -2.0]) if kind["items"] == "double" else st.sampled_from(["", "x", "yz"])
                return draw(st.lists(item, max_size=3))
            case "enum":
                return kind["symbols"][-1]
            case "fixed":
                return "\x00" * kind["size"]
        return 7
    return {
        "boolean": True,
        "float": 1.5,
        "double": -2.25,
        "string": draw(st.sampled_from(["", "none"])),
        "bytes": "b",
    }.get(kind, 42)


@st.composite
def schema_pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A writer's record and a reader's, compatible but for nulls and enum symbols."""
    names = Names()
    writer_fields: list[dict[str, Any]] = []
    reader_fields: list[dict[str, Any]] = []
    for i in range(draw(st.integers(1, 6))):
        where = draw(st.sampled_from(["both", "both", "both", "writer", "reader"]))
        if where == "writer":
            writer_fields.append({"name": f"f{i}", "type": draw(any_types(names))})
            continue
        written = draw(column_types(names))
        read = _reader_type(draw, written) if where == "both" else written
        if where == "reader" and isinstance(read, dict) and read["type"] == "array":
            read = {"type": "array", "items": draw(st.sampled_from(["string", "double"]))}
        listed = isinstance(read, dict) and read["type"] == "array"
        reader_field: dict[str, Any] = {"name": f"f{i}"}
        if where == "both":
            shape = draw(st.sampled_from(["plain", "nullable", "nullable-last", "wide"]))
            union = {"plain": written, "nullable": ["null", written], "nullable-last": [written, "null"]}.get(shape)
            if union is None:
                union = ["null", written, {"type": "map", "values": "long"}]
            name = f"f{i}"
            if draw(st.booleans()):
                name = f"old{i}"
                reader_field["aliases"] = [name]
            writer_fields.append({"name": name, "type": union})
        if not listed and draw(st.booleans()):
            reader_field["type"] = ["null", read] if draw(st.booleans()) else [read, "null"]
            if where == "reader":
                first = reader_field["type"][0]
                reader_field["default"] = None if first == "null" else _default(draw, read)
        else:
            reader_field["type"] = read
            if where == "reader":
                reader_field["default"] = _default(draw, read)
        reader_fields.append(reader_field)
    writer = {"type": "record", "name": "Event", "fields": writer_fields}
    return writer, {"type": "record", "name": "Event", "fields": draw(st.permutations(reader_fields))}


def data_of(schema: Any) -> st.SearchStrategy[Any]:
    """Data of a schema, as fastavro takes it."""
    if isinstance(schema, list):
        return st.one_of([_branch(s) for s in schema])
    if isinstance(schema, dict):
        match schema["type"]:
            case "array":
                return st.lists(data_of(schema["items"]), max_size=4)
            case "map":
                return st.dictionaries(st.text(max_size=3), data_of(schema["values"]), max_size=3)
            case "record":
                return st.fixed_dictionaries({f["name"]: data_of(f["type"]) for f in schema["fields"]})
            case "enum":
                return st.sampled_from(schema["symbols"])
            case "fixed":
                return st.binary(min_size=schema["size"], max_size=schema["size"])
        return data_of(schema["type"])
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70),
        "float": st.floats(width=32),
        "double": st.floats(),
        "string": TEXT,
        "bytes": st.binary(max_size=12) | st.sampled_from(NOT_TEXT),
    }[schema]


def _branch(schema: Any) -> st.SearchStrategy[Any]:
    if schema == "null":
        return st.none()
    name = schema if isinstance(schema, str) else schema.get("name", schema["type"])
    return data_of(schema).map(lambda value: (name, value))


def without_logical_types(node: Any) -> Any:
    """The schema with plain numbers where dates were."""
    if isinstance(node, list):
        return [without_logical_types(n) for n in node]
    if isinstance(node, dict):
        return {k: without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    return node
