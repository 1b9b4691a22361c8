"""Simulated events into a topic: as fast as Kafka takes them, or at their pace."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fluvial.producers.streams import Arrivals
from fluvial.records import F64, Spans, take
from fluvial.schemas.encoder import Encoder
from fluvial.transport.publisher import Delivery, Publisher

# Paced events are sent in slices of this many seconds.
SLICE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    """Events handed to the publisher, and how many of them are acknowledged, after so many seconds."""

    events: int
    acknowledged: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a simulation ends: after so many events, or so many seconds of its own time; None is no bound."""

    events: int | None = None
    seconds: float | None = None

    def cut(self, arriving: Iterator[Arrivals]) -> Iterator[Arrivals]:
        """Yield what is within the bounds: a shorter run is the beginning of a longer one."""
        left = self.events
        for a in arriving:
            n = len(a)
            if self.seconds is not None:
                n = int(np.searchsorted(a.second, self.seconds, side="left"))
            if left is not None:
                n = min(n, left)
                left -= n
            if n == len(a):
                yield a
            elif n:
                yield first_rows(a, 0, n)
            if n < len(a) or left == 0:
                return


class Simulation:
    """Publishes arrivals. Everything sent is acknowledged when `run` returns."""

    def __init__(
        self, publisher: Publisher, topic: str, key: str, encoder: Encoder, clock: Callable[[], float]
    ) -> None:
        """``key`` is the field of the record key; ``clock`` counts seconds, from anywhere."""
        self._publisher = publisher
        self._topic = topic
        self._key = key
        self._encoder = encoder
        self._clock = clock
        self._deliveries: list[Delivery] = []
        self._acknowledged = 0
        self._events = 0

    async def run(
        self,
        arriving: Iterator[Arrivals],
        *,
        speed: float | None,
        stop: asyncio.Event,
        report: Callable[[Progress], None],
    ) -> Progress:
        """Send everything, or until ``stop`` is set.

        ``speed`` is how many seconds of the simulation pass in one of the clock; without it nothing waits.

        Raises:
            PublishError: an event was not acknowledged.
        """
        begun = self._clock()
        while not stop.is_set():
            made = await asyncio.to_thread(self._next, arriving)
            if made is None:
                break
            keys, values, second = made
            for a, b in _slices(second, speed):
                if speed is not None:
                    await _until(begun + second[b - 1] / speed, self._clock, stop)
                if stop.is_set():
                    break
                await self._send(keys.take(np.arange(a, b)), values.take(np.arange(a, b)))
                report(self._progress(begun))
        await self._publisher.flush()
        return self._progress(begun)

    def _next(self, arriving: Iterator[Arrivals]) -> tuple[Spans, Spans, F64] | None:
        a = next(arriving, None)
        if a is None:
            return None
        keys = a.columns[self._key]
        assert isinstance(keys, Spans)
        return keys, self._encoder.encode(a.columns), a.second

    async def _send(self, keys: Spans, values: Spans) -> None:
        self._deliveries.append(await self._publisher.publish(self._topic, keys, values))
        self._events += len(keys)

    def _progress(self, begun: float) -> Progress:
        done = [d for d in self._deliveries if d.future.done()]
        self._acknowledged += sum(d.records - d.failed for d in done)
        self._deliveries = [d for d in self._deliveries if not d.future.done()]
        return Progress(self._events, self._acknowledged, self._clock() - begun)


def first_rows(a: Arrivals, start: int, stop: int) -> Arrivals:
    """Return some rows of arrivals."""
    rows = np.arange(start, stop)
    return Arrivals({name: take(c, rows) for name, c in a.columns.items()}, a.second[start:stop])


def _slices(second: F64, speed: float | None) -> list[tuple[int, int]]:
    if speed is None or not len(second):
        return [(0, len(second))] if len(second) else []
    slot = np.floor(second / speed / SLICE_SECONDS)
    edges = np.flatnonzero(np.concatenate([[True], slot[1:] != slot[:-1], [True]])).tolist()
    return list(zip(edges, islice(edges, 1, None), strict=False))


async def _until(when: float, clock: Callable[[], float], stop: asyncio.Event) -> None:
    wait = when - clock()
    if wait > 0:
        try:
            await asyncio.wait_for(stop.wait(), wait)
        except TimeoutError:
            return
