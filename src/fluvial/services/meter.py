"""How far a long count is, how fast it goes and how long it will take, told a few times a second at most."""

import math
import time
from collections.abc import Callable

from fluvial.cluster.progress import Report, Step

EVERY_SECONDS = 0.25


class Meter:
    """Counts ``unit`` up to ``total`` (0: not known) and reports, under ``subject``, the rate and the time left."""

    def __init__(
        self, report: Report, subject: str, unit: str, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._subject = subject
        self._unit = unit
        self._total = total
        self._clock = clock
        self._begun = self._told = clock()
        self.done = 0

    def add(self, n: int = 1) -> None:
        """Count n more."""
        self.done += n
        now = self._clock()
        if now - self._told >= EVERY_SECONDS:
            self._told = now
            self._tell(now)

    def finish(self) -> None:
        """Say that it is done, with the rate of all of it."""
        seconds = self.seconds
        rate = f", {self.done / seconds:,.0f}/s" if seconds > EVERY_SECONDS else ""
        self._report(Step(self._subject, f"ready: {self.done:,} {self._unit}{rate}"))

    @property
    def seconds(self) -> float:
        """Since when it counts."""
        return self._clock() - self._begun

    def _tell(self, now: float) -> None:
        rate = self.done / max(now - self._begun, 1e-9)
        if not self._total:
            self._report(Step(self._subject, f"{self.done:,} {self._unit}, {rate:,.0f}/s"))
            return
        left = duration(max(self._total - self.done, 0) / rate if rate else math.inf)
        message = f"{self._unit}, {rate:,.0f}/s, {left} left"
        self._report(Step(self._subject, message, min(self.done, self._total - 1), self._total))


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: ``45 s``, ``12 min``, ``3 h 20 min``; ``?`` when nobody knows."""
    if seconds == math.inf:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
