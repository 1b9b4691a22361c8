"""How much is sent at once, and whether anything is sent at all: two controllers without I/O or clock."""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class AdaptiveLimit:
    """The number of requests in flight: additive increase, multiplicative decrease (AIMD), as TCP has it.

    A round of answers within ``slow_seconds`` while the limit was used adds one; a slow answer or an overload takes
    ``1 - decrease`` of it, once per round trip: requests that were sent before the last decrease tell nothing new.
    """

    most: int
    least: int = 2
    start: int = 32
    slow_seconds: float = 0.5
    decrease: float = 0.75
    _limit: float = 0.0
    _decreased_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Begin at ``start``, or at ``most`` if that is less."""
        self.least = min(self.least, self.most)
        self._limit = float(min(self.start, self.most))

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    def answered(self, sent_at: float, now: float, in_flight: int) -> None:
        """Note an answer to a request sent at ``sent_at``, when ``in_flight`` were (it included)."""
        if now - sent_at > self.slow_seconds:
            self.overloaded(sent_at, now)
        elif in_flight >= self.allowed:
            self._limit = min(self._limit + 1 / self._limit, float(self.most))

    def overloaded(self, sent_at: float, now: float) -> None:
        """Note that a request was refused or lost because there was too much to do."""
        if sent_at > self._decreased_at:
            self._limit = max(self._limit * self.decrease, float(self.least))
            self._decreased_at = now


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays: ``first_seconds`` doubled per attempt up to ``most_seconds``, the upper half of it random."""

    first_seconds: float = 0.1
    most_seconds: float = 10.0

    def seconds(self, attempt: int, rng: random.Random) -> float:
        """Return how long to wait after failed attempt number ``attempt`` (from 1)."""
        full = min(self.first_seconds * 2.0 ** min(attempt - 1, 30), self.most_seconds)
        return full * (0.5 + rng.random() / 2)


class Breaker:
    """Open after ``failures_to_open`` failures in a row: then one probe at a time is sent, and nothing else."""

    def __init__(
        self,
        failures_to_open: int = 5,
        probes: Backoff = Backoff(0.5, 5.0),
        rng: random.Random | None = None,
    ) -> None:
        self.failures_to_open = failures_to_open
        self._probes = probes
        self._rng = rng or random.Random()  # noqa: S311 — jitter
        self._failures = 0
        self._failed_probes = 0
        self._next_probe = 0.0
        self.open_since: float | None = None

    def failed(self, now: float) -> bool:
        """Note a failure; return whether it opened the breaker."""
        self._failures += 1
        if self.open_since is None:
            if self._failures < self.failures_to_open:
                return False
            self.open_since = now
            self._failed_probes = 1
            self._next_probe = now + self._probes.seconds(1, self._rng)
            return True
        return False

    def succeeded(self, now: float) -> float | None:
        """Note a success; return for how many seconds the breaker was open, if this closed it."""
        self._failures = 0
        if self.open_since is None:
            return None
        paused = now - self.open_since
        self.open_since = None
        return paused

    def wait_seconds(self, now: float) -> float:
        """Return how long nothing may be sent: 0 when closed or a probe is due."""
        return 0.0 if self.open_since is None else max(0.0, self._next_probe - now)

    def take_probe(self, now: float) -> None:
        """Note that a request is sent while open: the next one is due later, ever later."""
        if self.open_since is not None:
            self._failed_probes += 1
            self._next_probe = now + self._probes.seconds(self._failed_probes, self._rng)
