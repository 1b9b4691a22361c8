"""Offsets that are to be read and are gone: what is told of them, and the choice to go on without them.

Retention may delete records before they are read, and a topic may be truncated or created anew. Nothing goes on by itself
then: the app stops, and a person chooses.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fluvial.errors import SettingsError, TransportError

ALL = "all"
_CHOICE = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+):(?P<partition>\d+)(?:@(?P<offset>\d+))?")


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read a partition: from ``offset``, or from the first one left after it; but ``required`` must be there."""

    offset: int
    required: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Offset ``wanted`` of a partition is to be read next; the log has ``first`` ≤ offset < ``end``.

    ``first_ms`` is the timestamp (epoch ms) of the first record left, None where it is not known or there is none.
    """

    topic: str
    partition: int
    wanted: int
    first: int
    end: int
    first_ms: int | None = None

    @property
    def lost(self) -> int:
        """How many offsets were deleted unread; 0 when the log ends before ``wanted``."""
        return max(self.first - self.wanted, 0)

    @property
    def choice(self) -> str:
        """How ``--from-available`` names this gap, and no other."""
        return f"{self.topic}:{self.partition}@{self.wanted}"

    def __str__(self) -> str:
        """Say what is wanted and what is there."""
        there = f"has the offsets {self.first} to {self.end - 1} now" if self.end > self.first else "is empty now"
        where = f"{self.topic}[{self.partition}] is to be read on from offset {self.wanted}, but the log {there}"
        if not self.lost:
            return f"{where}: it was truncated, or the topic was created anew"
        left = "" if self.first_ms is None else f"; the first record left is of {utc(self.first_ms)}"
        return f"{where}: {self.lost} offsets were deleted unread{left}"


class FromAvailable:
    """Which gaps are accepted: each partition once, so that a later gap is not passed over unseen."""

    def __init__(self, choices: Iterable[str] = ()) -> None:
        """Take ``TOPIC:PARTITION``, ``TOPIC:PARTITION@OFFSET`` (only if that is the offset wanted) or ``all``.

        Raises:
            SettingsError: a choice is none of these.
        """
        self._all = False
        self._chosen: dict[tuple[str, int], int | None] = {}
        self._spent: set[tuple[str, int]] = set()
        for choice in choices:
            found = _CHOICE.fullmatch(choice)
            if choice == ALL:
                self._all = True
            elif found:
                offset = found["offset"]
                self._chosen[found["topic"], int(found["partition"])] = int(offset) if offset else None
            else:
                raise SettingsError(
                    f"--from-available {choice} names no partition", hint="write it as iot.readings:3, or all"
                )

    def accepts(self, gap: Gap) -> bool:
        """Return whether to go on at the first record left, and count the choice as made."""
        place = (gap.topic, gap.partition)
        if place in self._spent:
            return False
        chosen = self._all or (place in self._chosen and self._chosen[place] in (None, gap.wanted))
        if chosen:
            self._spent.add(place)
        return chosen

    def settle(self, topic: str, partition: int) -> None:
        """Note that a partition has begun without a gap: one that is found later has not been chosen."""
        self._spent.add((topic, partition))


@dataclass(frozen=True, slots=True)
class GapPolicy:
    """What an app does about gaps.

    ``on_skipped`` is awaited for each one that is accepted, before anything is read after it. ``hint`` says what a person
    can do about the others. ``rereads``: a log that ends too early may be accepted too and is read from its start,
    because handling a record again changes nothing.
    """

    accepted: FromAvailable = field(default_factory=FromAvailable)
    on_skipped: Callable[[Gap], Awaitable[None]] | None = None
    hint: Callable[[Sequence[Gap]], str] | None = None
    rereads: bool = False

    def accepts(self, gap: Gap) -> bool:
        """Return whether a person has chosen to go on in spite of this gap."""
        return (bool(gap.lost) or self.rereads) and self.accepted.accepts(gap)

    def error(self, gaps: Sequence[Gap]) -> "OffsetsGoneError":
        """Return what the app stops with."""
        hint = (
            self.hint(gaps) if self.hint else "choose with batch_app(gaps=GapPolicy(…)); nothing is skipped by itself"
        )
        return OffsetsGoneError(gaps, hint)


class OffsetsGoneError(TransportError):
    """Records that are to be read next are not in the log: ``gaps``."""

    def __init__(self, gaps: Sequence[Gap], hint: str) -> None:
        super().__init__("; ".join(map(str, gaps)), hint=hint)
        self.gaps = tuple(gaps)


def utc(ms: int) -> str:
    """Return an instant (epoch ms) as people read it, to the second."""
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms} ms"
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
