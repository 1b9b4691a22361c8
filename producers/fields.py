"""The fields of an event as targets of an import: what each one takes, and what it is without a source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "number", "integer", "time", "texts", "numbers", "unsupported"]

_RANGES = {"int": (-(1 << 31), (1 << 31) - 1), "long": (-(1 << 63), (1 << 63) - 1), "boolean": (0, 1)}
_PER_SECOND = {"timestamp-millis": 1_000, "timestamp-micros": 1_000_000}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event.

    ``per_second`` is the resolution of a time (1,000: epoch ms). ``low`` and ``high`` bound an integer, ``symbols`` are
    those of an enum. ``default`` is the Avro default (None where there is none, and for null).
    """

    name: str
    kind: Kind
    nullable: bool = False
    has_default: bool = False
    default: Any = None
    per_second: int = 0
    low: int = _RANGES["long"][0]
    high: int = _RANGES["long"][1]
    symbols: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether an import must say where its values come from."""
        return not (self.nullable or self.has_default)


def fields_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the fields of an Avro record schema (parsed JSON), in its order."""
    return tuple(_field(f) for f in schema["fields"])


def _field(declared: Mapping[str, Any]) -> Field:
    name, avro = declared["name"], declared["type"]
    has_default, default = "default" in declared, declared.get("default")
    nullable = isinstance(avro, list) and "null" in avro
    if isinstance(avro, list):
        rest = [b for b in avro if b != "null"]
        avro = rest[0] if len(rest) == 1 else "unsupported"
    outer: Mapping[str, Any] = avro if isinstance(avro, Mapping) else {"type": avro}

    def field(kind: Kind, **more: Any) -> Field:
        return Field(name, kind, nullable, has_default, default, **more)

    if outer.get("logicalType") in _PER_SECOND:
        return field("time", per_second=_PER_SECOND[outer["logicalType"]])
    match outer["type"]:
        case "string":
            return field("text")
        case "enum":
            return field("text", symbols=tuple(outer["symbols"]))
        case "float" | "double":
            return field("number")
        case "int" | "long" | "boolean" as plain if "logicalType" not in outer:
            low, high = _RANGES[plain]
            return field("integer", low=low, high=high)
        case "array" if outer["items"] == "string" and not nullable:
            return field("texts")
        case "array" if outer["items"] in ("float", "double") and not nullable:
            return field("numbers")
    return field("unsupported")
