"""The choice to go on where records were deleted unread: made for one gap, or for all that are found at a start."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fluvial.errors import SettingsError

ALL = "all"
_CHOICE = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+):(?P<partition>\d+)(?:@(?P<offset>\d+))?")


@dataclass(frozen=True, slots=True)
class Gap:
    """Offset ``wanted`` of a partition is to be read next; the log has ``first`` ≤ offset < ``end``."""

    topic: str
    partition: int
    wanted: int
    first: int
    end: int

    @property
    def lost(self) -> int:
        """How many offsets were deleted unread; 0 when the log ends before ``wanted``."""
        return max(self.first - self.wanted, 0)

    @property
    def choice(self) -> str:
        """How ``--from-available`` names this gap, and no other."""
        return f"{self.topic}:{self.partition}@{self.wanted}"


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
        """Return whether to go on at the first record left, and count the choice as made. A topic that was created anew never."""
        place = (gap.topic, gap.partition)
        if gap.wanted > gap.end or place in self._spent:
            return False
        chosen = self._all or (place in self._chosen and self._chosen[place] in (None, gap.wanted))
        if chosen:
            self._spent.add(place)
        return chosen
