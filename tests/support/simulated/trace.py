"""What happened in a simulated run, line by line: printed for a failing seed, digested to show that a run repeats."""

import hashlib
from collections.abc import Callable


class Trace:
    """Notes with their virtual time; ``keep`` false only digests them."""

    def __init__(self, *, keep: bool) -> None:
        self.lines: list[str] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self._keep = keep
        self._digest = hashlib.blake2b(digest_size=8)

    def note(self, what: str) -> None:
        """Add a line."""
        line = f"{self.clock():9.3f}  {what}"
        self._digest.update(line.encode())
        if self._keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """What equal runs have in common."""
        return self._digest.hexdigest()
