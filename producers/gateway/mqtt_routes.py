"""MQTT topics → event topics: which levels are which fields, and what a payload means. Pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fluvial.errors import SettingsError
from fluvial.producers.gateway.intake import Unreadable
from fluvial.producers.gateway.senml import readings

FIELD = re.compile(r"\{([a-z_]+)\}")
SPARKPLUG = "spBv1.0/"


@dataclass(frozen=True, slots=True)
class Route:
    """``pattern``'s levels are literal, ``+``, ``{field}``, or a last ``#``; what matches goes to ``topic``."""

    pattern: str
    topic: str

    @property
    def filter(self) -> str:
        """The MQTT topic filter to subscribe to."""
        return FIELD.sub("+", self.pattern)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that levels give."""
        return tuple(FIELD.findall(self.pattern))

    @property
    def is_sparkplug(self) -> bool:
        """Whether payloads are Sparkplug B."""
        return self.pattern.startswith(SPARKPLUG)

    def match(self, mqtt_topic: str) -> dict[str, str] | None:
        """Return the fields that a topic's levels give, or None when it is not of this route."""
        wanted, given = self.pattern.split("/"), mqtt_topic.split("/")
        found: dict[str, str] = {}
        for i, level in enumerate(wanted):
            if level == "#":
                return found
            if i >= len(given):
                return None
            if field := FIELD.fullmatch(level):
                found[field[1]] = given[i]
            elif level not in ("+", given[i]):
                return None
        return found if len(given) == len(wanted) else None


def parse_routes(setting: str, topics: dict[str, Sequence[str]]) -> tuple[Route, ...]:
    """Return the routes of a setting, ``pattern=topic`` separated by commas; ``topics`` have each topic's fields.

    Raises:
        SettingsError: a route is malformed, or names a topic or field that does not exist.
    """
    routes = []
    for text in (t.strip() for t in setting.split(",") if t.strip()):
        pattern, equals, topic = (part.strip() for part in text.rpartition("="))
        hint = "e.g. plants/{site}/{sensor_id}/{metric}=iot.readings, spBv1.0/#=iot.readings"
        if not equals or not pattern or pattern.startswith(("/", "$")) or "#" in pattern[:-1]:
            raise SettingsError(f"gateway.mqtt_routes: {text!r} is no route", hint=hint)
        if topic not in topics:
            raise SettingsError(f"gateway.mqtt_routes: no event topic {topic}", hint=f"topics are {', '.join(topics)}")
        route = Route(pattern, topic)
        unknown = [f for f in route.fields if f not in topics[topic]]
        if unknown:
            raise SettingsError(f"gateway.mqtt_routes: {topic} has no field {', '.join(unknown)}", hint=hint)
        if any("{" in level and not FIELD.fullmatch(level) for level in pattern.split("/")):
            raise SettingsError(f"gateway.mqtt_routes: {pattern}: a field is a whole level", hint=hint)
        routes.append(route)
    if not routes:
        raise SettingsError("gateway.mqtt_url is set, but gateway.mqtt_routes is empty", hint="say what goes where")
    return tuple(routes)


def events_of(levels: dict[str, str], payload: bytes, received_ms: int) -> list[Any]:
    """Return the events of a plain payload as objects (`Unreadable` where one is none).

    A bare number is the ``value``, at the time it was received; an object has the other fields; a list is SenML when its
    items have ``n``, ``bn`` or ``v``, else a list of objects. What levels say stands, and a payload may not say otherwise.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return [Unreadable("not JSON")]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [{**levels, "value": value, "event_time": received_ms}]
    if isinstance(value, list) and value and isinstance(value[0], dict) and value[0].keys() & {"n", "bn", "v"}:
        return [e if isinstance(e, Unreadable) else {**e, **levels} for e in readings(value, received_ms)]
    return [_with_levels(v, levels) for v in (value if isinstance(value, list) else [value])]


def _with_levels(value: Any, levels: dict[str, str]) -> Any:
    if not isinstance(value, dict):
        return Unreadable("not a number, an object or a list of objects")
    other = [f for f, v in levels.items() if value.get(f, v) != v]
    if other:
        return Unreadable(f"{other[0]}: the payload says otherwise than the topic")
    return {**value, **levels}
