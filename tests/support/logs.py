"""Hypothesis strategies for pipelines, logs that go near every edge of theirs, and ways of cutting a log into batches.

Every log is made of one small event: `device`, `channel` (strings, the keys), `at` (event time), `value` (double),
`sequence` (null or long), `item` (null or string), and the three upstream fields. Sizes are a few milliseconds, so that
a few dozen records cross many windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from hypothesis import strategies as st

from fluvial.oracle.records import Record
from fluvial.schemas.declarations import (
    AGGREGATES,
    UPSTREAM_IDENTITY,
    Hopping,
    Pipeline,
    Rekey,
    Session,
    Table,
    Tumbling,
    Window,
)

MAX_AHEAD_MS = 300_000
UPSTREAM = Rekey("origin", "events", "test.Event", ("device", "channel", "at"), ("device",))
SPECIAL_DOUBLES = (
    0.0,
    -0.0,
    1.0,
    1.0,
    2.0,
    0.1,
    0.2,
    1e16,
    -1e16,
    1e-300,
    9e-301,
    -5e-324,
    1e308,
    -1.7976931348623157e308,
)

FIELDS: dict[str, type] = {
    "device": str,
    "channel": str,
    "at": int,
    "value": float,
    "sequence": int,
    "item": str,
    "upstream_partition": int,
    "upstream_offset": int,
    "upstream_index": int,
}

ONCE = ("keyed_tick", "invalid", "ahead", "ancient", "bad")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Log:
    """A pipeline and what is in one partition of its source."""

    pipeline: Pipeline
    upstream_partitions: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """One record, its time relative to the greatest time so far."""

    kind: Literal["event", "invalid", "ahead", "ancient", "tick", "keyed_tick", "bad"]
    behind: int
    jump: Literal["none", "span", "lateness", "idle"]
    nudge: int
    device: str
    channel: str
    value: float
    sequence: int | None
    item: str | None
    upstream: int
    offset_gap: int
    repeat: int


def windows() -> st.SearchStrategy[Window]:
    """Tumbling, hopping (2 to 4 windows per instant) and session windows of a few milliseconds."""
    return st.one_of(
        st.builds(Tumbling, st.sampled_from([1, 7, 10])),
        st.builds(lambda hop, n: Hopping(hop * n, hop), st.sampled_from([1, 5]), st.integers(2, 4)),
        st.builds(Session, st.sampled_from([1, 4, 10])),
    )


@st.composite
def pipelines(draw: st.DrawFn, window: st.SearchStrategy[Window] | None = None) -> Pipeline:
    """Draw pipelines over the test event, of any declared kind: key, partition and rekeyed time."""
    w = draw(window if window is not None else windows())
    span = w.gap_ms if isinstance(w, Session) else w.size_ms
    lateness = draw(st.sampled_from([0, 1, 5]))
    source = draw(st.sampled_from(["key", "key", "partition", "rekeyed"]))
    some = [AGGREGATES, AGGREGATES, ("count",), ("count", "sum"), ("last", "p95"), ("top", "mean"), ("distinct",)]
    aggregates = draw(st.sampled_from(some))
    if isinstance(w, Session):
        aggregates = tuple(name for name in aggregates if name != "top")
    by_fields = [("sequence", "value"), ("sequence", "value"), ("sequence",), ("item",), ()]
    return Pipeline(
        source="events",
        event="test.Event",
        key=draw(st.sampled_from([("device",), ("device", "channel")])),
        window=w,
        aggregates=aggregates,
        table=Table("tested", ("device",)),
        time="key" if source == "key" else "partition",
        event_time="at",
        lateness_ms=lateness,
        idle_timeout_ms=span + lateness + draw(st.sampled_from([0, 3, 40])),
        early_ms=0 if isinstance(w, Session) else draw(st.sampled_from([0, 1, 4])),
        identity=UPSTREAM_IDENTITY if source == "rekeyed" and draw(st.booleans()) else draw(st.sampled_from(by_fields)),
        identity_has_time=draw(st.booleans()),
        value="value",
        distinct="item" if "distinct" in aggregates else None,
        top="item" if "top" in aggregates else None,
        top_k=draw(st.sampled_from([1, 2, 20])),
        upstream=(UPSTREAM,) if source == "rekeyed" else (),
    )


@st.composite
def logs(draw: st.DrawFn, pipeline: st.SearchStrategy[Pipeline] | None = None, max_size: int = 60) -> Log:
    """Draw a pipeline and a log: disorder, repeats, ticks of both kinds, idle gaps, bad and far-ahead records."""
    p = draw(pipeline if pipeline is not None else pipelines())
    upstream_partitions = draw(st.integers(1, 3)) if p.upstream else 0
    # Left alone, Hypothesis' lists have five elements on average: too few to close, repeat and merge.
    least = draw(st.sampled_from([0, max_size // 6, max_size // 3]))
    steps = draw(st.lists(_steps(upstream_partitions), min_size=least, max_size=max_size))
    return Log(p, upstream_partitions, tuple(_records(p, steps)))


def batchings(n: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Ways of cutting n records into consecutive batches, as (from, to); some are empty, some hold one record."""
    cuts = st.one_of(
        st.just(list(range(n + 1))),
        st.lists(st.integers(0, n), max_size=12).map(sorted),
    )
    return cuts.map(lambda inner: list(zip([0, *inner], [*inner, n], strict=True)))


def cut(items: Sequence[T], batching: Sequence[tuple[int, int]]) -> list[Sequence[T]]:
    """Return the batches that a batching makes of the items."""
    return [items[a:b] for a, b in batching]


def _steps(upstream_partitions: int) -> st.SearchStrategy[_Step]:
    kinds = ["event"] * 30 + ["tick"] * (8 if upstream_partitions else 2) + [*ONCE]
    return st.builds(
        _Step,
        kind=st.sampled_from(kinds),
        behind=st.one_of(st.integers(-12, 4), st.just(0), st.integers(-40, 0)),
        jump=st.sampled_from(["none"] * 8 + ["span", "lateness", "idle"]),
        nudge=st.integers(-1, 1),
        device=st.sampled_from(["a", "a", "b", "ü", ""]),
        channel=st.sampled_from(["x", "y"]),
        value=st.one_of(st.sampled_from(SPECIAL_DOUBLES), st.floats(allow_nan=False, allow_infinity=False)),
        sequence=st.sampled_from([None, None, 0, 1, 2]),
        item=st.sampled_from([None, "berlin", "kyiv", "köln", "k", "", "😀"]),
        upstream=st.integers(0, max(upstream_partitions - 1, 0)),
        offset_gap=st.sampled_from([0, 0, 0, 2]),
        repeat=st.sampled_from([0] * 6 + [1, 2, 5]),
    )


def _records(p: Pipeline, steps: list[_Step]) -> list[Record]:
    span = p.window.gap_ms if isinstance(p.window, Session) else p.window.size_ms
    jumps = {"none": 0, "span": span, "lateness": span + p.lateness_ms, "idle": p.idle_timeout_ms}
    clock, offset = 0, -1
    records: list[Record] = []
    sent: list[dict[str, Any]] = []
    for i, step in enumerate(steps):
        offset += 1 + step.offset_gap
        t = clock + step.behind + jumps[step.jump] + (step.nudge if step.jump != "none" else 0)
        if step.kind not in ("ahead", "ancient", "invalid", "bad"):
            clock = max(clock, t)
        event: dict[str, Any] = {
            "device": step.device,
            "channel": step.channel,
            "at": t,
            "value": float("nan") if step.kind == "invalid" else step.value,
            "sequence": step.sequence,
            "item": step.item,
            "upstream_partition": step.upstream,
            "upstream_offset": i,
            "upstream_index": step.nudge + 1,
        }
        if step.kind == "event" and 0 < step.repeat <= len(sent):
            event = sent[-step.repeat]
        key = event["device"].encode() if step.device != "ü" or step.channel == "x" else None
        match step.kind:
            case "event" | "invalid":
                records.append(Record(offset, t, "event", key, event))
                sent.append(event)
            case "ancient":
                before_year_one = -62_135_596_800_001 if offset % 2 else -(1 << 63)
                records.append(Record(offset, t, "event", key, event | {"at": before_year_one}))
            case "ahead":
                records.append(Record(offset, t - MAX_AHEAD_MS - 1, "event", key, event | {"at": t}))
            case "tick":
                records.append(Record(offset, 0, "tick", None, None, t, step.upstream if p.upstream else None))
            case "keyed_tick" if not p.upstream:
                records.append(Record(offset, 0, "keyed_tick", step.device.encode(), None, t))
            case _:
                records.append(Record(offset, 0, "bad"))
    return records
