"""Which windows hold an instant, which have ended, and which events are fit to be in one."""

import math

from fluvial.oracle.records import Event
from fluvial.schemas.declarations import Hopping, Pipeline, Session, Tumbling, Window

NEVER = -math.inf
Instant = int | float  # epoch ms, or NEVER


def covering(window: Tumbling | Hopping, t: int) -> list[tuple[int, int]]:
    """Return the aligned windows that hold t, the earliest first."""
    size = window.size_ms
    hop = window.hop_ms if isinstance(window, Hopping) else size
    newest = t // hop * hop
    starts = [newest - n * hop for n in reversed(range(size // hop))]
    return [(start, start + size) for start in starts]


def closed_through(window: Window, instant: Instant) -> Instant:
    """Return the greatest aligned end at or before a finite instant; for sessions, which have none, the instant."""
    if isinstance(window, Session):
        return instant
    if isinstance(window, Hopping):
        return (instant - window.size_ms) // window.hop_ms * window.hop_ms + window.size_ms
    return instant // window.size_ms * window.size_ms


def is_valid(pipeline: Pipeline, event: Event) -> bool:
    """Return whether key, event time and value are there and no double that the pipeline reads is NaN or infinite."""
    values = [pipeline.value] if pipeline.value else []
    if any(event[name] is None for name in (*pipeline.key, pipeline.event_time, *values)):
        return False
    read = [event[name] for name in (*pipeline.key, *pipeline.identity, *values)]
    return all(math.isfinite(x) for x in read if isinstance(x, float))
