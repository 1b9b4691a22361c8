"""Simulated events: a function of the seed alone, realistic enough to be worth watching."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from fluvial.producers import streams
from fluvial.producers.random_blocks import BLOCK_EVENTS
from fluvial.producers.sensors import METRICS, Sensors
from fluvial.producers.simulation import Bounds, Progress, Simulation
from fluvial.producers.simulation_plan import SimulationError, SimulationRequest, plan_simulation
from fluvial.producers.streams import Arrivals, arrivals
from fluvial.records import Spans
from fluvial.schemas.avro import load_schema
from fluvial.schemas.encoder import Encoder
from support.importing import rows, values

NOW, START = 1_800_000_000_000, 1_700_000_000_000
ENCODERS = {
    "sensors": Encoder(load_schema("fluvial.iot.SensorReading"), 1),
    "posts": Encoder(load_schema("fluvial.social.SocialPost"), 2),
}


def sent(request: SimulationRequest) -> list[bytes]:
    """Return the encoded events of a simulation, in the order in which they are sent."""
    found = []
    for a in plan_simulation(request, NOW).arrivals():
        spans = ENCODERS[request.kind].encode(a.columns)
        found += [spans.bytes_at(i) or b"" for i in range(len(spans))]
    return found


@pytest.mark.parametrize("kind", ["sensors", "posts"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_rate(kind: str) -> None:
    request = SimulationRequest(
        kind, seed=7, keys=50, events=40_000, start_ms=START, disorder_seconds=30, duplicates=0.05  # type: ignore[arg-type]
    )  # fmt: skip
    once = sent(request)
    assert len(once) == 40_000
    for rate in (3.0, 1e6):
        assert sent(SimulationRequest(kind, 7, 50, rate, 40_000, None, START, 30, 0.05)) == once  # type: ignore[arg-type]
    assert sent(SimulationRequest(kind, 8, 50, None, 40_000, None, START, 30, 0.05)) != once  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sensors", "posts"])
def test_a_shorter_run_is_the_beginning_of_a_longer_one(kind: str) -> None:
    short, long = (
        sent(SimulationRequest(kind, 3, 40, None, n, None, START, 5, 0.01)) for n in (1_000, 20_000)  # type: ignore[arg-type]
    )  # fmt: skip
    assert long[:1_000] == short


def test_a_repeat_is_the_same_bytes_again_and_their_share_is_as_asked() -> None:
    found = Counter(sent(SimulationRequest("sensors", 1, 1_000, None, 60_000, None, START, 2, 0.1)))
    assert set(found.values()) == {1, 2}
    assert 0.08 < sum(n == 2 for n in found.values()) / len(found) < 0.11


@pytest.mark.parametrize(
    ("disorder", "duplicates"), [(0.0, 0.0), (0.5, 0.0), (0.0, 1.0), (400.0, 0.02), (9_000.0, 0.0)]
)
def test_arrivals_are_in_order_complete_and_delayed_within_bounds(disorder: float, duplicates: float) -> None:
    stream = Sensors(5, 30, START)
    found = list(Bounds(events=2 * BLOCK_EVENTS).cut(arrivals(stream, 5, disorder, duplicates)))
    second = np.concatenate([f.second for f in found])
    assert (np.diff(second) >= 0).all()
    times = np.concatenate([f.columns["event_time"].values for f in found])  # type: ignore[union-attr]
    delay = second - (times - START) / 1000
    assert delay.min() >= 0
    assert delay.max() <= disorder + (streams.REPEAT_TO if duplicates else 0) + len(METRICS) / stream.per_second + 0.001
    # Whatever happened long enough ago has arrived.
    old = times < START + 1000 * (second[-1] - disorder - 10)
    ids = {(e["sensor_id"], e["metric"], e["sequence"]) for f in found for e in rows(f.columns)}
    assert len(ids) >= old.sum() / (1 + duplicates) * 0.99


def test_every_sensor_reports_all_metrics_at_once_with_a_counter_and_a_daily_wave() -> None:
    stream = Sensors(1, 2, START)
    events = [e for n in range(8) for e in rows(stream.block(n))]
    temperature = [e for e in events if e["sensor_id"] == "sensor-0001" and e["metric"] == "temperature"]
    assert [e["sequence"] for e in temperature] == list(range(len(temperature)))
    assert {b["event_time"] - a["event_time"] for a, b in pairwise(temperature)} == {10_000}
    assert len({e["site"] for e in temperature}) == 1
    reports = Counter((e["sensor_id"], e["event_time"]) for e in events)
    assert set(reports.values()) == {len(METRICS)}
    hours = np.array([e["event_time"] // 3_600_000 % 24 for e in temperature])
    value = np.array([e["value"] for e in temperature])
    assert value[hours == 15].mean() - value[hours == 3].mean() > 5
    assert all(m.low <= e["value"] <= m.high for e in events for m in METRICS if m.name == e["metric"])


def test_posts_are_skewed_come_in_sessions_and_trend_in_bursts() -> None:
    request = SimulationRequest("posts", 1, 2_000, None, 30_000, None, START)
    events = [e for a in plan_simulation(request, NOW).arrivals() for e in rows(a.columns)]
    assert len({e["post_id"] for e in events}) == 30_000
    assert {e["network"] for e in events} == {"mastodon", "bluesky", "lemmy", "pixelfed"}
    assert {"en", "de", None} <= {e["language"] for e in events}
    tags = Counter(t for e in events for t in e["hashtags"])
    assert tags["weather"] > 5 * tags["weather40"]
    assert all(f"#{t}" in e["text"] for e in events[:500] for t in e["hashtags"])
    by_slot = [
        Counter(t for e in events if (e["event_time"] - START) // 600_000 == s for t in e["hashtags"])
        for s in range(3, 6)
    ]
    leaders = {slot.most_common(1)[0][0] for slot in by_slot}
    assert len(leaders) > 1, "every slot has a trend of its own"
    of_author: dict[str, list[int]] = {}
    for e in events:
        of_author.setdefault(e["author_id"], []).append(e["event_time"])
    gaps = np.concatenate([np.diff(t) for t in of_author.values() if len(t) > 3]) / 60_000
    assert np.median(gaps) < 10
    assert (gaps > 60).any()
    ids = {e["post_id"] for e in events}
    replies = [e["reply_to"] for e in events if e["reply_to"]]
    assert 0.15 < len(replies) / len(events) < 0.25
    assert set(replies) <= ids


def test_without_a_start_a_paced_simulation_begins_now_and_a_fast_one_ends_now() -> None:
    paced = plan_simulation(SimulationRequest("sensors", rate=50.0, events=500, duplicates=0.25), NOW)
    assert paced.speed == 1.0
    first = next(paced.arrivals())
    assert min(values(first.columns["event_time"])) == NOW
    assert first.second[-1] == pytest.approx(500 / 50.0, rel=0.1)
    fast = plan_simulation(SimulationRequest("sensors", events=100_000, keys=100), NOW)
    assert fast.speed is None
    last = max(int(a.columns["event_time"].values.max()) for a in fast.arrivals())  # type: ignore[union-attr]
    assert NOW - 1_000 < last <= NOW


def test_a_duration_bounds_event_time() -> None:
    request = SimulationRequest("posts", keys=60_000, duration_seconds=100, start_ms=START)
    times = np.concatenate([a.columns["event_time"].values for a in plan_simulation(request, NOW).arrivals()])  # type: ignore[union-attr]
    assert times.min() == START
    assert START + 99_900 < times.max() < START + 100_000
    assert len(times) == pytest.approx(10_000, rel=0.01)


@pytest.mark.parametrize(
    "request_",
    [
        SimulationRequest("sensors"),
        SimulationRequest("sensors", rate=0.0),
        SimulationRequest("sensors", keys=0, events=1),
        SimulationRequest("posts", events=1, duplicates=1.5),
        SimulationRequest("posts", events=1, disorder_seconds=-1.0),
    ],
)
def test_a_simulation_without_sense_is_refused(request_: SimulationRequest) -> None:
    with pytest.raises(SimulationError):
        plan_simulation(request_, NOW)


class FakeDelivery:
    def __init__(self, records: int) -> None:
        self.records, self.failed = records, 0
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.future.set_result(None)


class FakePublisher:
    """Takes everything and notes when it came."""

    def __init__(self, clock: "FakeClock") -> None:
        self.clock = clock
        self.sent: list[tuple[float, int]] = []

    async def publish(self, topic: str, keys: Spans, values: Spans) -> FakeDelivery:
        self.sent.append((self.clock(), len(values)))
        return FakeDelivery(len(values))

    async def flush(self) -> None:
        pass


class FakeClock:
    """Moves a millisecond whenever it is asked, so that nobody has to wait for it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


async def run(arriving: Iterator[Arrivals], speed: float | None, stop: asyncio.Event) -> tuple[FakePublisher, Progress]:
    clock = FakeClock()
    publisher = FakePublisher(clock)
    simulation = Simulation(publisher, "t", "sensor_id", ENCODERS["sensors"], clock)  # type: ignore[arg-type]
    return publisher, await simulation.run(arriving, speed=speed, stop=stop, report=lambda _: None)


async def test_at_full_speed_everything_is_sent_and_counted() -> None:
    plan = plan_simulation(SimulationRequest("sensors", events=40_000), NOW)
    publisher, done = await run(plan.arrivals(), None, asyncio.Event())
    assert [n for _, n in publisher.sent] == [16_384, 16_384, 7_232]
    assert (done.events, done.acknowledged) == (40_000, 40_000)


async def test_paced_events_are_sent_in_small_slices_none_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def until(when: float, clock: FakeClock, stop: asyncio.Event) -> None:
        waits.append(when - 100.0)
        clock.now = max(clock.now, when)

    monkeypatch.setattr("fluvial.producers.simulation._until", until)
    plan = plan_simulation(SimulationRequest("sensors", rate=1_000.0, events=2_000), NOW)
    publisher, done = await run(plan.arrivals(), plan.speed, asyncio.Event())
    assert done.events == 2_000
    assert len(publisher.sent) == 40
    assert all(n in (49, 50, 51) for _, n in publisher.sent)
    assert np.allclose(waits, np.arange(1, 41) * 0.05, atol=0.01)


async def test_a_stopped_simulation_sends_no_more() -> None:
    stop = asyncio.Event()
    stop.set()
    publisher, done = await run(plan_simulation(SimulationRequest("sensors", rate=1.0), NOW).arrivals(), 1.0, stop)
    assert not publisher.sent
    assert done.events == 0


def test_bounds_cut_within_a_chunk() -> None:
    stream = Sensors(1, 10, START)
    cut = list(Bounds(events=BLOCK_EVENTS + 1).cut(arrivals(stream, 1, 0, 0)))
    assert [len(a) for a in cut] == [BLOCK_EVENTS, 1]
    assert list(Bounds(seconds=0.0).cut(arrivals(stream, 1, 0, 0))) == []
