"""A replayed range against the oracle: the values of all windows that are closed, whatever was late, and no open one."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial.oracle.oracle import Oracle, run
from fluvial.schemas.declarations import Hopping, Pipeline, Session, Tumbling
from fluvial.stream_apps.replay_across import AcrossPartitions
from fluvial.stream_apps.replay_rules import NEVER_IDLE_MS, NEVER_LATE_MS, Lateness, Span, event_times, widened
from fluvial.stream_apps.replaying import Replay, new_replay
from support.engine import batch_of, rows_of
from support.logs import FIELDS, Log, batchings, cut, logs, pipelines

WINDOWS = {
    "tumbling": st.builds(Tumbling, st.sampled_from([1, 7, 10])),
    "hopping": st.builds(lambda hop, n: Hopping(hop * n, hop), st.sampled_from([1, 5]), st.integers(2, 4)),
    "session": st.builds(Session, st.sampled_from([1, 4, 10])),
}
PROVENANCE = ("generation", "source_partition", "source_offset")


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_closed_windows_of_the_range_have_the_oracle_s_values_and_open_ones_are_not_written(window: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        log = data.draw(logs(pipelines(WINDOWS[window])))
        lateness: Lateness = data.draw(
            st.one_of(st.sampled_from(["unlimited", "declared"]), st.sampled_from([0, 5, 30]))
        )
        span = data.draw(spans(log.pipeline))
        good = good_records(log)
        end = log.records[-1].offset + 1 if log.records else 0
        made = replayed(log, span, lateness, end, cut(good, data.draw(batchings(len(good)))))
        rows = rows_of(made.columns(generation=3))
        wanted, open_windows = expected(log, span, lateness)
        assert values(rows) == values(wanted)
        assert len(values(rows)) == len(rows)
        assert made.counts.open_windows == open_windows
        assert made.counts.windows == len(rows)
        assert all(r["final"] and r["generation"] == 3 and r["source_offset"] < max(end, 1) for r in rows)

    holds()


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_reading_may_start_where_every_earlier_time_lies_before_the_range(window: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        log = data.draw(logs(pipelines(WINDOWS[window])))
        if log.pipeline.upstream:
            return
        span = data.draw(spans(log.pipeline))
        good = good_records(log)
        begin = event_times(log.pipeline, span)[0]
        times = [r.event["at"] if r.event is not None else r.time for r in good]
        first = next((i for i, t in enumerate(times) if t >= begin), len(good))
        end = log.records[-1].offset + 1 if log.records else 0
        whole = replayed(log, span, "unlimited", end, [good])
        part = replayed(log, span, "unlimited", end, [good[first:]])
        assert rows_of(part.columns(1)) == rows_of(whole.columns(1)) or bits(part) == bits(whole)
        assert part.counts == whole.counts

    holds()


def test_replays_of_one_log_are_equal_bit_for_bit_however_it_was_cut() -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        log = data.draw(logs(pipelines(st.one_of(*WINDOWS.values()))))
        span = data.draw(spans(log.pipeline))
        good = good_records(log)
        end = log.records[-1].offset + 1 if log.records else 0
        once, again = (
            replayed(log, span, "unlimited", end, cut(good, data.draw(batchings(len(good))))) for _ in range(2)
        )
        assert bits(once) == bits(again)
        assert once.keys().length.sum() == again.keys().length.sum()

    holds()


@pytest.mark.parametrize("window", sorted(WINDOWS))
def test_across_partitions_a_key_s_events_of_all_of_them_make_one_row(window: str) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        one = data.draw(logs(pipelines(WINDOWS[window])))
        two = data.draw(logs(st.just(one.pipeline)))
        p, span = one.pipeline, data.draw(spans(one.pipeline))
        if p.upstream:
            return
        parts = [good_records(one), good_records(two)]
        ends = {n: part[-1].offset + 1 if part else 0 for n, part in enumerate(parts)}
        made = AcrossPartitions(p, span, ends)
        for n, part in enumerate(parts):
            for records in cut(part, data.draw(batchings(len(part)))):
                made.partition(n).process(batch_of(records, FIELDS))
        rows = rows_of(made.columns(generation=2))
        clocks = [Oracle(p, 0, 300_000, 0, n) for n in range(2)]
        for clock, part in zip(clocks, parts, strict=True):
            for record in part:
                clock.handle(record)
        after = [replace(r, offset=r.offset + ends[0]) for r in parts[1]]
        ruled = replace(p, lateness_ms=NEVER_LATE_MS, idle_timeout_ms=NEVER_IDLE_MS)
        latest = {
            (*(r[f] for f in p.key), r["window_start"]): r for r in run(ruled, parts[0] + after, exhausted=True).rows
        }
        inside = [r for r in latest.values() if span.begin <= r["window_start"] < span.end]
        wanted = [r | {"final": True} for r in inside if r["window_end"] <= closed_anywhere(clocks, p, r)]
        assert values(rows) == values(wanted)
        assert made.counts.open_windows == len(inside) - len(wanted)
        assert {r["source_partition"] for r in rows} <= {-1}

    holds()


def closed_anywhere(clocks: list[Oracle], p: Pipeline, row: dict[str, Any]) -> float:
    """Return C of the partition that has the key's greatest time, or, by the partition's time, the least C."""
    known = [(c, c.keys[key]) for c in clocks if (key := tuple(row[f] for f in p.key)) in c.keys]
    if p.time == "partition":
        return min(c.C for c, _ in known)
    return max((key.K, key.C) for _, key in known)[1]


@pytest.mark.parametrize(
    ("window", "wanted"),
    [(Tumbling(10), (10, 30)), (Hopping(20, 5), (-5, 25)), (Session(4), (13, 21))],
)
def test_a_range_is_widened_to_the_windows_that_overlap_it(window: Any, wanted: tuple[int, int]) -> None:
    span = widened(pipeline_of(window), 13, 21)
    assert (span.begin, span.end) == wanted


def pipeline_of(window: Any) -> Pipeline:
    from fluvial.stream_apps.shipped import AUTHOR_SESSIONS, SENSOR_MINUTE

    if isinstance(window, Session):
        return replace(AUTHOR_SESSIONS, window=window)
    return replace(SENSOR_MINUTE, window=window)


def spans(pipeline: Pipeline) -> st.SearchStrategy[Span]:
    ranges = st.tuples(st.integers(-40, 120), st.one_of(st.integers(1, 60), st.just(10_000)))
    return ranges.map(lambda r: widened(pipeline, r[0], r[0] + r[1]))


def good_records(log: Log) -> list[Any]:
    found = run(log.pipeline, log.records, upstream_partitions=log.upstream_partitions)
    dead = {d.offset for d in found.dead}
    return [r for r in log.records if r.offset not in dead]


def replayed(log: Log, span: Span, lateness: Lateness, end: int, batches: Any) -> Replay:
    made = new_replay(log.pipeline, 0, span, lateness, end=end, upstream_partitions=log.upstream_partitions)
    for records in batches:
        made.process(batch_of(records, FIELDS))
    once_more = made.again()
    if once_more is not None:
        for records in batches:
            made.process_again(batch_of([r for r in records if once_more[0] <= r.offset < once_more[1]], FIELDS))
    return made


def expected(log: Log, span: Span, lateness: Lateness) -> tuple[list[dict[str, Any]], int]:
    """Return the rows that the oracle gives under a rule, of windows that the declared rule has closed; and the rest."""
    p = log.pipeline
    live = Oracle(p, log.upstream_partitions, 300_000, 0, 0)
    for record in log.records:
        live.handle(record)
    if lateness == "declared":
        ruled = p
    elif lateness == "unlimited":
        ruled = replace(p, lateness_ms=NEVER_LATE_MS, idle_timeout_ms=NEVER_IDLE_MS)
    else:
        length = p.window.gap_ms if isinstance(p.window, Session) else p.window.size_ms
        ruled = replace(p, lateness_ms=lateness, idle_timeout_ms=max(p.idle_timeout_ms, length + lateness))
    found = run(ruled, log.records, upstream_partitions=log.upstream_partitions, exhausted=True)
    # The last row of a window is its final one, or its value when the log ended.
    latest = {(*(r[f] for f in p.key), r["window_start"]): r for r in found.rows}
    inside = [r for r in latest.values() if span.begin <= r["window_start"] < span.end]
    if lateness == "declared":
        closed = [r for r in inside if r["final"]]
    else:
        closed = []
        for r in inside:
            key = live.keys[tuple(r[f] for f in p.key)]
            if r["window_end"] <= (live.C if p.time == "partition" else key.C):
                closed.append(r | {"final": True})
    return closed, len(inside) - len(closed)


def values(rows: list[dict[str, Any]]) -> set[Any]:
    return {tuple((name, _bits(v)) for name, v in r.items() if name not in PROVENANCE) for r in rows}


def bits(made: Replay) -> set[Any]:
    return {tuple((name, _bits(v)) for name, v in r.items()) for r in rows_of(made.columns(1))}


def _bits(v: Any) -> Any:
    if isinstance(v, float):
        return "nan" if v != v else struct.pack(">d", v)
    return tuple(_bits(x) for x in v) if isinstance(v, list) else v
