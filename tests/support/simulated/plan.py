"""What a seed stands for: the events, the deployment, the weather and the faults of one run."""

import random
from dataclasses import dataclass, field
from typing import Literal

from support.simulated.cassandra import Mood
from support.simulated.declared import TOPOLOGIES
from support.simulated.kafka import BASE_MS, Weather

PARTITIONS = 2
WORKERS = 2
SINKS = 2
DAY_MS = 86_400_000

FaultKind = Literal["kill", "pause", "replace", "stop", "join", "broker stall", "node down", "compaction", "bit flip"]
VALUES = (0.1, 0.2, 0.3, 1e16, -1e16, 1.0, 3.0, -0.0, 1e-9)


@dataclass(frozen=True, slots=True)
class Sending:
    """One thing that is sent to the source topic: an event, or bytes that are none."""

    at: float
    device: str
    sequence: int | None
    event_time: int
    value: float
    items: tuple[str, ...]
    times: int = 1
    garbage: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: when (seconds), what, with whom, and for how long."""

    at: float
    kind: FaultKind
    target: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    topology: str
    sendings: tuple[Sending, ...]
    faults: tuple[Fault, ...]
    span: float
    static: bool
    fetch_wait: tuple[float, float]
    fetch_most: int
    checkpoint_seconds: float
    rows_per_batch: int
    #: How likely each of the product's failpoints kills its process when it is reached.
    failpoint: float
    weather: Weather
    mood: Mood
    #: When the workers are replaced by corrected ones of generation 1; None: never.
    corrected_at: float | None
    ticks: tuple[float, ...] = field(default=())

    def __str__(self) -> str:
        kinds = ", ".join(f"{f.kind} {f.target} at {f.at:.1f} s".replace("  ", " ") for f in self.faults)
        more = "" if self.corrected_at is None else f"; generation 1 from {self.corrected_at:.1f} s"
        return f"{self.topology}, {len(self.sendings)} sendings in {self.span:.0f} s{more}; {kinds or 'no faults'}"


def plan(seed: int) -> Plan:
    """Draw the plan of a seed."""
    rng = random.Random(seed)
    calm = rng.random() < 0.1
    span = rng.uniform(25, 60)
    topology = rng.choice(list(TOPOLOGIES))
    faults = [] if calm else [_fault(rng, span) for _ in range(rng.choice([1, 2, 3, 3, 4, 5, 7]))]
    if not calm and rng.random() < 0.4:
        faults += _amid_an_outage(rng, span)
    harsh = not calm and rng.random() < 0.5
    return Plan(
        seed=seed,
        topology=topology,
        sendings=tuple(sorted(_sendings(rng, span), key=lambda s: s.at)),
        faults=tuple(sorted((f for f in faults if f.at < span), key=lambda f: f.at)),
        span=span,
        static=rng.random() < 0.5,
        fetch_wait=rng.choice([(1.0, 3.0), (2.0, 6.0), (4.0, 9.0)]),
        fetch_most=rng.choice([5, 15, 60]),
        checkpoint_seconds=rng.choice([3.0, 7.0, 15.0]),
        rows_per_batch=rng.choice([1, 3, 100]),
        failpoint=0.0 if calm else rng.choice([0.0, 0.0, 0.02, 0.08]),
        weather=Weather(
            latency=rng.choice([(0.002, 0.04), (0.05, 1.5)]),
            offset_gap=rng.choice([0.0, 0.1]),
            delivery_lost=0.02 if harsh and rng.random() < 0.5 else 0.0,
            delivery_unanswered=0.02 if harsh and rng.random() < 0.5 else 0.0,
        ),
        mood=Mood(
            latency=rng.choice([(0.001, 0.02), (0.02, 0.8)]),
            slow=rng.choice([0.1, 0.5]) if harsh else 0.0,
            lost=rng.choice([0.05, 0.4]) if harsh else 0.0,
            hot=rng.choice([0.0, 0.0, 0.3]) if harsh else 0.0,
        ),
        corrected_at=rng.uniform(0.3, 0.9) * span if not calm and rng.random() < 0.25 else None,
        ticks=tuple(x + rng.uniform(-0.5, 0.5) for x in range(3, int(span), rng.choice([3, 6]))),
    )


def _fault(rng: random.Random, span: float) -> Fault:
    at = rng.uniform(2, span)
    services = [f"worker{i}" for i in range(WORKERS)] + [f"sink{i}" for i in range(SINKS)]
    kind: FaultKind = rng.choice(
        ["kill"] * 4
        + ["pause"] * 3
        + ["replace"] * 2
        + ["stop", "join", "broker stall", "node down", "compaction", "bit flip"]  # type: ignore[arg-type]
    )
    match kind:
        case "kill":
            return Fault(at, kind, rng.choice([*services, "gateway"]), rng.choice([0.1, 2.0, 20.0]))
        case "pause" | "replace":
            return Fault(at, kind, rng.choice(services), rng.choice([2.0, 15.0, 30.0]))
        case "stop":
            return Fault(at, kind, rng.choice(services), rng.choice([0.1, 5.0]))
        case "join":
            return Fault(at, kind, rng.choice(["worker", "sink"]), rng.uniform(4, 25))
        case "node down":
            return Fault(at, kind, rng.choice(["node1", "node2", "node3", "node1 node2"]), rng.uniform(2, 25))
        case "broker stall":
            return Fault(at, kind, "", rng.uniform(1, 12))
        case "compaction" | "bit flip":
            return Fault(at, kind)


def _amid_an_outage(rng: random.Random, span: float) -> list[Fault]:
    """Draw an outage of two of three nodes, and what happens to the sinks while they wait."""
    at, seconds = rng.uniform(5, span), rng.uniform(6, 25)
    faults = [Fault(at, "node down", rng.choice(["node1 node2", "node2 node3"]), seconds)]
    for _ in range(rng.randint(1, 3)):
        kind: FaultKind = rng.choice(["kill", "kill", "stop", "join", "replace"])
        target = "sink" if kind == "join" else f"sink{rng.randrange(SINKS)}"
        faults.append(Fault(at + rng.uniform(0, seconds), kind, target, rng.choice([0.1, 5.0, 15.0])))
    return faults


def _sendings(rng: random.Random, span: float) -> list[Sending]:
    devices = [f"d{i}" for i in range(rng.choice([1, 3, 6, 10]))]
    behind = {d: rng.choice([0, 0, 0, DAY_MS - 20_000 if i else 0]) for i, d in enumerate(devices)}
    n = rng.choice([15, 30, 45, 80])
    sequence = dict.fromkeys(devices, 0)
    made = []
    for at in sorted(rng.uniform(0, span) for _ in range(n)):
        device = rng.choice(devices)
        sequence[device] += 1
        disorder = rng.choice([0, 0, 500, 3_000, 9_000, 25_000])
        time = BASE_MS + int(at * 1000) - rng.randint(0, disorder) - behind[device]
        odd = rng.random()
        if odd < 0.02:
            time += 400_000  # a clock that is ahead
        made.append(
            Sending(
                at,
                device,
                sequence[device] if rng.random() < 0.9 else None,
                time,
                float("nan") if 0.02 < odd < 0.03 else rng.choice(VALUES),
                tuple(rng.choice("abc") for _ in range(rng.randint(0, 3))),
                times=2 if 0.05 < odd < 0.15 else 1,
                garbage=b"\0\0\0\0\1\x02" if 0.03 < odd < 0.05 else None,
            )
        )
    return made
