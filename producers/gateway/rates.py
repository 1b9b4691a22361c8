"""How many events a key may send: a token bucket per key, of one second's worth."""

import time
from collections.abc import Callable

from fluvial.producers.gateway.keys import Grant


class RateLimiter:
    """Allows each key ``default`` events a second (0: any number), or the key's own rate, in bursts of one second.

    A batch that is larger than a burst is allowed when the bucket is full; it then waits the longer afterwards.
    """

    def __init__(self, default: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._default = default
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_seconds(self, grant: Grant, events: int) -> float:
        """Take ``events`` from the key's bucket and return 0, or return how long to wait and take nothing."""
        rate = grant.events_per_second or self._default
        if not rate:
            return 0.0
        now = self._clock()
        tokens, then = self._buckets.get(grant.name, (rate, now))
        tokens = min(rate, tokens + (now - then) * rate)
        wanted = min(events, rate)
        if tokens < wanted:
            self._buckets[grant.name] = (tokens, now)
            return max((wanted - tokens) / rate, 0.001)
        self._buckets[grant.name] = (tokens - events, now)
        return 0.0
