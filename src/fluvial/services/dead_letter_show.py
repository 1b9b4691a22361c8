"""Everything about one dead letter: what it holds, decoded as far as it goes, and what would become of it now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluvial.errors import SchemaError
from fluvial.schemas.partial import Partial, read_partial
from fluvial.schemas.registry import Registry
from fluvial.services.dead_letter_check import Check
from fluvial.services.dead_letter_log import DeadLetterLog
from fluvial.services.dead_letters import DeadLetterError, Letter, Mark, State, state_of


@dataclass(frozen=True, slots=True)
class Shown:
    """One dead letter. ``times`` is how often it was set aside; ``decoded`` is None where no schema can be found.

    ``schema`` says which schema, or why there is none; ``now`` what would become of the record if it came again, and
    ``passes`` whether it would pass (None: nobody can tell).
    """

    letter: Letter
    state: State
    mark: Mark | None
    times: int
    schema: str
    decoded: Partial | None
    now: str
    passes: bool | None


def show(log: DeadLetterLog, registry: Registry, check: Check, topic: str, at: tuple[int, int]) -> list[Shown]:
    """Return the dead letter of a record; several if the topic was re-created and had the offset twice.

    Raises:
        DeadLetterError: there is none.
        RegistryUnavailableError: the registry does not answer.
    """
    topics = log.topics([topic])
    marks = log.marks(topics)
    (name,) = topics
    found: dict[Any, tuple[Letter, int]] = {}
    for letter in log.letters(topics):
        if (letter.place.partition, letter.place.offset) == at:
            found[letter.place] = letter, found.get(letter.place, (letter, 0))[1] + 1
    if not found:
        raise DeadLetterError(f"{name}[{at[0]}]@{at[1]} is no dead letter", hint=f"`fluvial dead-letters list {name}`")
    out = []
    for letter, times in found.values():
        told, decoded = _decoded(letter.payload, registry)
        mark = marks.get(letter.place)
        now, passes = _verdict(letter, check)
        out.append(Shown(letter, state_of(letter, marks), mark, times, told, decoded, now, passes))
    return out


def _verdict(letter: Letter, check: Check) -> tuple[str, bool | None]:
    reason = check.failures([letter])[0]
    if reason is not None:
        return f"it would fail again: {reason}", False
    if not check.knows(letter.place.topic):
        return "nobody can tell: no pipeline that is declared reads the topic", None
    if letter.stage in ("process", "write"):
        return "it can be read; whether it can be written, only Cassandra tells", None
    return "it would pass", True


def _decoded(payload: bytes | None, registry: Registry) -> tuple[str, Partial | None]:
    if payload is None:
        return "no payload", None
    if len(payload) < 5 or payload[0] != 0:
        return "it does not begin with a 0 byte and a schema id, so nothing says what it is", None
    number = int.from_bytes(payload[1:5], "big")
    try:
        schema = registry.by_id(number)
    except SchemaError as e:
        return str(e), None
    name = schema.get("name", "") if isinstance(schema, Mapping) else str(schema)
    space = f"{schema['namespace']}." if isinstance(schema, Mapping) and "namespace" in schema else ""
    return f"schema id {number}, {space}{name}", read_partial(payload[5:], schema)
