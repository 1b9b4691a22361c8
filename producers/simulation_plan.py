"""What a simulation was asked for → when it starts, how dense its events are, and how fast it is sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fluvial.errors import FluvialError
from fluvial.producers.posts import Posts
from fluvial.producers.sensors import Sensors
from fluvial.producers.simulation import Bounds
from fluvial.producers.streams import Arrivals, EventStream, arrivals

Kind = Literal["sensors", "posts"]
_STREAMS: dict[Kind, type[Sensors] | type[Posts]] = {"sensors": Sensors, "posts": Posts}


class SimulationError(FluvialError):
    """A simulation was asked for that has no end or no pace."""


@dataclass(frozen=True, slots=True)
class SimulationRequest:
    """A simulation: ``events`` (repeats too) and ``duration_seconds`` (of event time) bound it, ``rate`` is its pace.

    With ``start_ms`` (epoch ms) the events are a function of it, seed, keys, disorder and duplicates: the pace changes
    none of them. Without it, a paced simulation begins now and its event times follow the clock; one at full speed ends
    now.
    """

    kind: Kind
    seed: int = 1
    keys: int = 1_000
    rate: float | None = None
    events: int | None = None
    duration_seconds: float | None = None
    start_ms: int | None = None
    disorder_seconds: float = 0.0
    duplicates: float = 0.0


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """``speed``: seconds of event time per second of the clock, None for as fast as it goes."""

    request: SimulationRequest
    stream: EventStream
    speed: float | None
    bounds: Bounds

    def arrivals(self) -> Iterator[Arrivals]:
        """Yield the events in the order in which they are sent."""
        r = self.request
        return self.bounds.cut(arrivals(self.stream, r.seed, r.disorder_seconds, r.duplicates))


def plan_simulation(request: SimulationRequest, now_ms: int) -> SimulationPlan:
    """Settle start, density and speed.

    Raises:
        SimulationError: neither a pace nor an end, or a number that makes no sense.
    """
    if request.keys < 1 or not 0.0 <= request.duplicates <= 1.0 or request.disorder_seconds < 0.0:
        raise SimulationError(
            "keys must be positive, disorder not negative and duplicates a share",
            hint="e.g. --keys 100 --duplicates 0.01",
        )
    if request.rate is not None and request.rate <= 0:
        raise SimulationError(f"a rate of {request.rate} events/s never ends", hint="leave --rate out for full speed")
    if request.rate is None and request.events is None and request.duration_seconds is None:
        raise SimulationError("a simulation at full speed needs an end", hint="say --events or --duration, or a --rate")
    make, sent_per_event = _STREAMS[request.kind], 1.0 + request.duplicates
    live = request.start_ms is None
    if live and request.rate is not None:
        stream: EventStream = make(request.seed, request.keys, now_ms, request.rate / sent_per_event)
        return SimulationPlan(request, stream, 1.0, Bounds(request.events, request.duration_seconds))
    density = make(request.seed, request.keys, 0).per_second * sent_per_event
    start = request.start_ms
    if start is None:
        spans = [s for s in (request.duration_seconds, (request.events or 0) / density or None) if s is not None]
        start = now_ms - round(1000 * min(spans))
    speed = None if request.rate is None else request.rate / density
    stream = make(request.seed, request.keys, start)
    return SimulationPlan(request, stream, speed, Bounds(request.events, request.duration_seconds))
