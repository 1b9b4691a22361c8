"""Partitions that have records waiting and do not move: noticed, explained, and the worker stopped.

Faust's own detector compares epoch time with a monotonic clock and never fires.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from faust.types import TP
from mode import Service

from fluvial.errors import TransportError


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a partition: the finished position, and the end of what can be read (None: not known yet)."""

    position: int
    end: int | None
    paused: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """The position that a partition had last, and the second (of a monotonic clock) since when it has had it."""

    position: int
    since: float


def observe(
    before: Mapping[TP, Progress], readings: Mapping[TP, Reading], now: float, stall_seconds: float
) -> tuple[dict[TP, Progress], list[TP]]:
    """Return the progress of every partition and those that are stalled.

    Stalled: records have been waiting, and the position has not moved, for ``stall_seconds``. A partition that is
    paused, caught up, of unknown end, or seen for the first time starts anew.
    """
    after: dict[TP, Progress] = {}
    stalled: list[TP] = []
    for tp, reading in readings.items():
        known = before.get(tp)
        waiting = reading.end is not None and reading.position < reading.end and not reading.paused
        if known is None or known.position != reading.position or not waiting:
            after[tp] = Progress(reading.position, now)
            continue
        after[tp] = known
        if now - known.since >= stall_seconds:
            stalled.append(tp)
    return after, sorted(stalled)


class Watchdog(Service):  # type: ignore[misc]
    """Looks at all assigned partitions a few times per ``stall_seconds``, and stops the app when one is stalled."""

    def __init__(self, app: Any, stall_seconds: float, **kwargs: Any) -> None:
        self.app = app
        self.stall_seconds = stall_seconds
        super().__init__(**kwargs)

    @Service.task
    async def _watch(self) -> None:
        progress: dict[TP, Progress] = {}
        while not self.should_stop:
            await self.sleep(self.stall_seconds / 8)
            consumer = self.app.consumer
            if self.app.rebalancing or self.app.is_waiting or not consumer.flow_active:
                progress = {}
                continue
            readings = await consumer.readings()
            progress, stalled = observe(progress, readings, time.monotonic(), self.stall_seconds)
            if stalled and not self.should_stop:
                await self.app.fail_stop(explain(stalled, readings, consumer, self.app, self.stall_seconds))


def explain(
    stalled: Iterable[TP], readings: Mapping[TP, Reading], consumer: Any, app: Any, stall_seconds: float
) -> TransportError:
    """Say which partitions are stalled and what the agents are at."""
    app.log.error("Agents while partitions were stalled:\n%s", app.agents.human_tracebacks())
    where = ", ".join(f"{tp.topic}[{tp.partition}] at {readings[tp].position} of {readings[tp].end}" for tp in stalled)
    held = sum(len(prefix) for prefix in consumer.prefixes.values())
    doing = ", ".join(str(message) for message in consumer.in_hand) or "nothing"
    return TransportError(
        f"no progress for {stall_seconds:.0f} s on {where}; "
        f"agents are working on {doing}, {held} deliveries are unfinished",
        hint="acknowledge every batch that is held, give every await in an agent a timeout; tracebacks are in the log",
    )
