"""Reading a damaged or foreign Avro datum as far as it goes: for people who look at dead letters, not for pipelines.

Every value is bounded by the bytes that are there, lists and depth by limits, so that hostile data cost nothing.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_ITEMS = 100
MAX_DEPTH = 20
MAX_VALUES = 10_000


@dataclass(slots=True)
class Partial:
    """The fields that could be read, by name, and what stopped the reading (None: the datum was read to its end)."""

    fields: dict[str, Any] = field(default_factory=dict)
    stopped: str | None = None


class _StopError(Exception):
    pass


def read_partial(datum: bytes, schema: Any) -> Partial:
    """Return what a datum (without its frame) says by its writer's schema, a record, up to the first thing that is wrong."""
    found = Partial()
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        found.stopped = "its schema is no record"
        return found
    reader = _Reader(datum)
    reader.learn(schema)
    name = ""
    try:
        for f in schema["fields"]:
            name = f["name"]
            found.fields[name] = reader.value(f["type"], 0)
        name = ""
        if reader.at < len(datum):
            found.stopped = f"{len(datum) - reader.at} more bytes after the last field"
    except _StopError as e:
        found.stopped = f"field {name}, byte {reader.at}: {e}"
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        found.stopped = f"field {name}, byte {reader.at}: {type(e).__name__}: {e}"
    return found


class _Reader:
    def __init__(self, datum: bytes) -> None:
        self._datum = datum
        self.at = 0
        self._values = 0
        self._named: dict[str, Any] = {}

    def learn(self, schema: Mapping[str, Any]) -> None:
        """Know a named type from now on, by its short and its full name."""
        if "name" in schema:
            self._named[schema["name"]] = self._named[f"{schema.get('namespace', '')}.{schema['name']}"] = schema

    def value(self, schema: Any, depth: int) -> Any:
        """Return the next value, of a type."""
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise _StopError("too deep or too much to be shown")
        if isinstance(schema, list):
            branch = self._long()
            if not 0 <= branch < len(schema):
                raise _StopError(f"branch {branch} of a union of {len(schema)}")
            return self.value(schema[branch], depth + 1)
        if isinstance(schema, str):
            return self._primitive(schema) if schema not in self._named else self.value(self._named[schema], depth + 1)
        kind = schema["type"]
        self.learn(schema)
        match kind:
            case "record":
                return {f["name"]: self.value(f["type"], depth + 1) for f in schema["fields"]}
            case "array":
                return self._items(lambda: self.value(schema["items"], depth + 1))
            case "map":
                pairs = self._items(lambda: (self._primitive("string"), self.value(schema["values"], depth + 1)))
                return dict(pairs)
            case "enum":
                symbol = self._long()
                if not 0 <= symbol < len(schema["symbols"]):
                    raise _StopError(f"symbol {symbol} of {len(schema['symbols'])}")
                return schema["symbols"][symbol]
            case "fixed":
                return self._take(schema["size"]).hex()
        return self.value(kind, depth + 1)

    def _items(self, one: Any) -> list[Any]:
        out: list[Any] = []
        while count := self._long():
            if count < 0:
                count = -count
                self._long()
            if len(out) + count > MAX_ITEMS:
                raise _StopError(f"{len(out) + count} items, too many to be shown")
            out += [one() for _ in range(count)]
        return out

    def _primitive(self, kind: str) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                return bool(self._take(1)[0])
            case "int" | "long":
                return self._long()
            case "float":
                return struct.unpack("<f", self._take(4))[0]
            case "double":
                return struct.unpack("<d", self._take(8))[0]
            case "string":
                return self._take(self._long()).decode(errors="replace")
            case "bytes":
                return self._take(self._long()).hex()
        raise _StopError(f"type {kind} is not known")

    def _take(self, n: int) -> bytes:
        left = len(self._datum) - self.at
        if not 0 <= n <= left:
            raise _StopError(f"a length of {n} where {left} bytes are left")
        self.at += n
        return self._datum[self.at - n : self.at]

    def _long(self) -> int:
        value = shift = 0
        while True:
            if self.at >= len(self._datum):
                raise _StopError("the bytes end here")
            byte = self._datum[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > 63:
                raise _StopError("a number longer than 64 bits")
