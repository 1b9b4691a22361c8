"""Avro schemas as frozen trees: validated, names resolved, bounded; what the codecs are compiled from."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro

from fluvial.errors import SchemaError

MAX_DEPTH = 64
MAX_CHARACTERS = 1_000_000
MAX_WIDTH = 1 << 40
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

Schema = Mapping[str, Any] | list[Any] | str


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a record; ``default`` is None when ``has_default`` is false."""

    name: str
    aliases: tuple[str, ...]
    shape: "Shape"
    has_default: bool
    default: Any


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One node of a schema. Which attributes count depends on ``kind``, an Avro type name (or ``union``).

    ``logical`` is kept for ``decimal`` only: all other logical types are stored, and kept here, as what they annotate.
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    size: int = 0
    scale: int = 0
    logical: str = ""
    items: "Shape | None" = None
    branches: tuple["Shape", ...] = ()
    fields: tuple[Field, ...] = ()


def shape_of(schema: Schema) -> Shape:
    """Parse an Avro schema.

    Raises:
        SchemaError: invalid, recursive, deeper than 64 levels or longer than a million characters.
    """
    if _nesting(schema) > 2 * MAX_DEPTH:
        raise SchemaError("a schema is nested too deeply", hint=f"types are limited to {MAX_DEPTH} levels")
    text = json.dumps(schema)
    if len(text) > MAX_CHARACTERS:
        raise SchemaError(f"a schema of {len(text):,} characters", hint=f"schemas are limited to {MAX_CHARACTERS:,}")
    try:
        parsed = fastavro.parse_schema(json.loads(text))
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, KeyError, TypeError, ValueError) as e:
        raise SchemaError(f"invalid Avro schema: {type(e).__name__}: {e}", hint="correct the schema") from None
    return _build(parsed, {}, 0)


def _nesting(schema: Schema) -> int:
    deepest, stack = 0, [(schema, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        children: Iterator[Any] = iter(())
        if isinstance(node, Mapping):
            children = iter(node.values())
        elif isinstance(node, list):
            children = iter(node)
        stack.extend((child, depth + 1) for child in children if isinstance(child, Mapping | list))
    return deepest


def _build(node: Any, named: dict[str, Shape | None], depth: int) -> Shape:
    if depth > MAX_DEPTH:
        raise SchemaError("a schema is nested too deeply", hint=f"types are limited to {MAX_DEPTH} levels")
    if isinstance(node, list):
        return Shape("union", branches=tuple(_build(b, named, depth + 1) for b in node))
    if isinstance(node, str):
        if node in PRIMITIVES:
            return Shape(node)
        found = named.get(node)
        if found is None:
            raise SchemaError(f"the schema's type {node} is recursive", hint="recursive schemas are not supported")
        return found
    kind = node["type"]
    if not isinstance(kind, str) or kind not in {"record", "error", "enum", "fixed", "array", "map"}:
        return _annotated(_build(kind, named, depth + 1), node)
    if kind in {"array", "map"}:
        return Shape(kind, items=_build(node["items" if kind == "array" else "values"], named, depth + 1))
    name = node["name"]
    named[name] = None
    aliases = tuple(node.get("aliases", ()))
    if kind == "enum":
        shape = Shape(kind, name, aliases, symbols=tuple(node["symbols"]), default_symbol=node.get("default"))
    elif kind == "fixed":
        shape = _annotated(Shape(kind, name, aliases, size=int(node["size"])), node)
    else:
        fields = (
            Field(
                f["name"],
                tuple(f.get("aliases", ())),
                _build(f["type"], named, depth + 1),
                "default" in f,
                f.get("default"),
            )
            for f in node["fields"]
        )
        shape = Shape("record", name, aliases, fields=tuple(fields))
    named[name] = shape
    return shape


def _annotated(shape: Shape, node: Mapping[str, Any]) -> Shape:
    if node.get("logicalType") != "decimal" or shape.kind not in {"bytes", "fixed"}:
        return shape
    return Shape(
        shape.kind, shape.name, shape.aliases, size=shape.size, logical="decimal", scale=int(node.get("scale", 0))
    )


@lru_cache(maxsize=4096)
def min_width(shape: Shape) -> int:
    """Return the least number of bytes that a datum of this shape takes."""
    match shape.kind:
        case "null":
            return 0
        case "float":
            return 4
        case "double":
            return 8
        case "fixed":
            return min(MAX_WIDTH, shape.size)
        case "record":
            return min(MAX_WIDTH, sum(min_width(f.shape) for f in shape.fields))
        case "union":
            return 1 + min((min_width(b) for b in shape.branches), default=0)
        case _:
            return 1


def unqualified(name: str) -> str:
    """Return a full name's last part."""
    return name.rsplit(".", 1)[-1]


def same_name(writer: Shape, reader: Shape) -> bool:
    """Whether two named types match: equal unqualified names, or the writer's is an alias of the reader's."""
    short = unqualified(writer.name)
    return short == unqualified(reader.name) or writer.name in reader.aliases or short in reader.aliases
