"""Dead letters as an operator sees them: which record, what became of it, which ones are meant. Pure functions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fluvial.errors import FluvialError

SUFFIX = ".dead-letter"
BATCH_BYTES = 4 << 20
LEFT_OUT = "it was too large to be kept here as a whole"
# Provenance, on every record that was sent again; they stay on it when it fails again.
FROM_HEADER = "fluvial-redriven-from"
TIMES_HEADER = "fluvial-redriven-times"
AT_HEADER = "fluvial-redriven-at"
TIMESTAMP_HEADER = "fluvial-redriven-timestamp"
PROVENANCE = frozenset({FROM_HEADER, TIMES_HEADER, AT_HEADER, TIMESTAMP_HEADER})

State = Literal["open", "failed again", "redriven", "discarded"]
STATES: tuple[State, ...] = ("open", "failed again", "redriven", "discarded")


class DeadLetterError(FluvialError):
    """Dead letters cannot be found, read or sent again."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Which record a dead letter is of. The timestamp (epoch ms) tells a topic from one re-created under its name."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is stored; ``set_aside`` (epoch ms) is when it was.

    ``left_out`` are the bytes of a payload that was too large to be copied: then ``payload`` is None.
    """

    place: Place
    key: bytes | None
    payload: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    stage: str
    error_type: str
    error_message: str
    set_aside: int
    left_out: int = 0

    @property
    def attempts(self) -> int:
        """How often the record had been redriven when it failed."""
        text = (dict(self.headers).get(TIMES_HEADER) if self.headers else None) or b""
        return int(text) if re.fullmatch(rb"[0-9]{1,9}", text) else 0

    @property
    def origin(self) -> str:
        """The place of the record that was first set aside."""
        first = dict(self.headers).get(FROM_HEADER)
        return first.decode(errors="replace") if first else str(self.place)

    @property
    def cause(self) -> str:
        """The error's message without the place and the topic around it."""
        text = self.error_message.removeprefix(f"cannot {self.stage} {self.place}: ")
        return text.removesuffix(f"; kept in {self.place.topic}{SUFFIX}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was done about a dead letter, when (epoch ms), and why (discarded) or how often by then (redriven)."""

    state: Literal["redriven", "discarded"]
    at: int
    reason: str = ""
    times: int = 0


Marks = Mapping[Place, Mark]


def state_of(letter: Letter, marks: Marks) -> State:
    """Return what became of a dead letter."""
    mark = marks.get(letter.place)
    if mark is not None:
        return mark.state
    return "failed again" if letter.attempts else "open"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: all that fit everything that is given.

    ``since`` (included) and ``until`` (not included) are the records' own timestamps in Kafka, epoch ms; ``error`` is an
    error type, or a text that the message contains (both in any case); ``at`` are (partition, offset).
    """

    partitions: frozenset[int] = frozenset()
    at: frozenset[tuple[int, int]] = frozenset()
    stages: frozenset[str] = frozenset()
    errors: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    states: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether nothing but states is asked for."""
        return self == Wanted(states=self.states)

    def takes(self, letter: Letter, state: State) -> bool:
        """Whether a dead letter is among them."""
        p = letter.place
        return (
            (not self.states or state in self.states)
            and (not self.partitions or p.partition in self.partitions)
            and (not self.at or (p.partition, p.offset) in self.at)
            and (not self.stages or letter.stage in self.stages)
            and (self.since is None or p.timestamp >= self.since)
            and (self.until is None or p.timestamp < self.until)
            and (not self.errors or any(_same_error(e, letter) for e in self.errors))
        )


def _same_error(text: str, letter: Letter) -> bool:
    given = text.casefold()
    return given == letter.error_type.casefold() or given in letter.error_message.casefold()


def parse_at(text: str) -> tuple[int, int]:
    """Return partition and offset of ``PARTITION:OFFSET``.

    Raises:
        DeadLetterError: it is not of that form.
    """
    found = re.fullmatch(r"(\d{1,9})[:@](\d{1,18})", text)
    if found is None:
        raise DeadLetterError(f"{text!r} is no place", hint="write PARTITION:OFFSET, e.g. 1:7268")
    return int(found[1]), int(found[2])


class Distinct:
    """Lets each dead letter through once: a worker that was restarted sets the same records aside again."""

    def __init__(self) -> None:
        self.repeats = 0
        self._seen: set[Place] = set()

    def __call__(self, letter: Letter) -> bool:
        """Whether this is the first one of its record."""
        if letter.place in self._seen:
            self.repeats += 1
            return False
        self._seen.add(letter.place)
        return True


@dataclass(slots=True)
class Group:
    """Dead letters of one topic, stage and error type (and partition, if asked for), counted by state."""

    topic: str
    stage: str
    error_type: str
    example: str
    first: int
    last: int
    partitions: dict[int, int] = field(default_factory=dict)
    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(self.states.values())


class Summary:
    """Groups of dead letters and the newest few of them, made of a stream."""

    def __init__(self, keep: int, *, by_partition: bool = False) -> None:
        self.groups: dict[tuple[Any, ...], Group] = {}
        self._newest: list[tuple[Letter, State]] = []
        self._keep = keep
        self._by_partition = by_partition

    def add(self, letter: Letter, state: State) -> None:
        """Count one."""
        p = letter.place
        key = (p.topic, letter.stage, letter.error_type, p.partition if self._by_partition else -1)
        group = self.groups.get(key)
        if group is None:
            group = Group(p.topic, letter.stage, letter.error_type, letter.cause, p.timestamp, p.timestamp)
            self.groups[key] = group
        group.first, group.last = min(group.first, p.timestamp), max(group.last, p.timestamp)
        group.partitions[p.partition] = group.partitions.get(p.partition, 0) + 1
        group.states[state] += 1
        if self._keep:
            self._newest.append((letter, state))
        if len(self._newest) > 2 * self._keep + 1000:
            self._newest = self._cut()

    @property
    def records(self) -> int:
        """How many were added."""
        return sum(g.records for g in self.groups.values())

    @property
    def newest(self) -> list[tuple[Letter, State]]:
        """The newest ones (by the records' timestamps), oldest first."""
        return self._cut()

    def _cut(self) -> list[tuple[Letter, State]]:
        ordered = sorted(self._newest, key=lambda pair: (pair[0].place.timestamp, pair[0].place))
        return ordered[-self._keep :] if self._keep else []


def mark_key(place: Place) -> bytes:
    """Return the key of a mark's record."""
    return f"{place} {place.timestamp}".encode()


def place_of_key(key: bytes) -> Place | None:
    """Return the place of a mark's key, None when it is none."""
    found = re.fullmatch(r"(.+)\[(\d+)\]@(\d+) (-?\d+)", key.decode(errors="replace"))
    return None if found is None else Place(found[1], int(found[2]), int(found[3]), int(found[4]))


def provenance(letter: Letter, at_ms: int) -> tuple[tuple[str, bytes | None], ...]:
    """Return a letter's headers as they are sent again: the original ones, then where it comes from, how often, when."""
    original = tuple(h for h in letter.headers if h[0] not in PROVENANCE)
    added = (
        (FROM_HEADER, letter.origin.encode()),
        (TIMES_HEADER, str(letter.attempts + 1).encode()),
        (AT_HEADER, str(at_ms).encode()),
        (TIMESTAMP_HEADER, _first_timestamp(letter)),
    )
    return (*original, *added)


def _first_timestamp(letter: Letter) -> bytes:
    return dict(letter.headers).get(TIMESTAMP_HEADER) or str(letter.place.timestamp).encode()


def in_batches(letters: Iterable[Letter], size: int) -> Iterable[Sequence[Letter]]:
    """Yield letters in lists of one topic, at most ``size`` and some 4 MiB of payloads each, in their order."""
    batch: list[Letter] = []
    held = 0
    for letter in letters:
        if batch and (len(batch) >= size or held >= BATCH_BYTES or batch[0].place.topic != letter.place.topic):
            yield batch
            batch, held = [], 0
        batch.append(letter)
        held += len(letter.payload or b"")
    if batch:
        yield batch
