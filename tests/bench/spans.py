"""From what measured processes said while they ran to events per second: pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass


class TooShortError(Exception):
    """The processes did not get through enough events to tell a rate."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How far every process was at one moment; ``handled`` has a None for a process that has not begun."""

    seconds: float
    handled: tuple[int | None, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def total(self) -> int | None:
        """Events handled by all processes, None while one has not begun."""
        return None if None in self.handled else sum(n for n in self.handled if n is not None)


@dataclass(frozen=True, slots=True)
class Span:
    """A measured stretch: its events, its wall time and the CPU time of all processes in it."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def events_per_second(self) -> float:
        """Events per second of wall time."""
        return self.events / self.seconds

    @property
    def events_per_cpu_second(self) -> float:
        """Events per second of CPU time."""
        return self.events / self.cpu_seconds


def span_of(samples: Sequence[Sample], warm_up: int, events: int) -> Span:
    """Return the stretch from the first sample past ``warm_up`` events to the first one with all ``events``.

    Raises:
        TooShortError: there are no two such samples, or no CPU time passed between them.
    """
    begun = next((s for s in samples if (s.total or 0) >= warm_up and s.total is not None), None)
    ended = next((s for s in samples if (s.total or 0) >= events), None)
    if begun is None or ended is None:
        reached = max((s.total or 0 for s in samples), default=0)
        raise TooShortError(f"reached {reached:,} of {events:,} events")
    span = Span(
        (ended.total or 0) - (begun.total or 0),
        ended.seconds - begun.seconds,
        sum(ended.cpu_seconds) - sum(begun.cpu_seconds),
    )
    if span.events <= 0 or span.seconds <= 0 or span.cpu_seconds <= 0:
        raise TooShortError(f"{events:,} events are too few: it went from {warm_up:,} to the end in one step")
    return span
