"""Recomputing for a table: the same rows as the oracle writes, for all keys or some; and what a comparison makes of rows."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.oracle.comparing import OFFSET_BITS, Circumstances, Comparison, FoundRow
from fluvial.oracle.oracle import run
from fluvial.oracle.recompute import Recompute, Span, every_key
from fluvial.oracle.records import Row
from fluvial.oracle.sample import Sample
from fluvial.schemas.declarations import Pipeline, Session, Table, Tumbling
from support.logs import Log, logs

STAMPED = ("count", "duplicates", "final", "source_offset")


def recompute(log: Log, **options: Any) -> Recompute:
    part = Recompute(log.pipeline, partition=0, upstream_partitions=log.upstream_partitions, **options)
    for record in log.records:
        part.handle(record)
    return part


def written(log: Log, *bounded_runs: int) -> list[Row]:
    """Return the rows of a table after the whole log, and after some runs that ended earlier."""

    def rows(records: Any, exhausted: bool) -> list[Row]:
        return run(log.pipeline, records, upstream_partitions=log.upstream_partitions, exhausted=exhausted).rows

    every = [row for n in bounded_runs for row in rows(log.records[:n], True)] + rows(log.records, False)
    table: dict[Any, Row] = {}
    for row in every:
        at = (*(row[name] for name in log.pipeline.key), row["window_start"])
        if at not in table or table[at]["source_offset"] <= row["source_offset"]:
            table[at] = row
    return list(table.values())


def found(row: Row, **changes: Any) -> FoundRow:
    stamp = row["generation"] << OFFSET_BITS | row["source_offset"]
    return FoundRow(row | changes, dict.fromkeys(STAMPED, stamp))


def compared(log: Log, rows: list[FoundRow], part: Recompute | None = None, **known: Any) -> Comparison:
    covered = {0: log.records[-1].offset + 1 if log.records else 0}
    comparison = Comparison(log.pipeline, [part or recompute(log)], Circumstances(0, covered, 0, **known), limit=1_000)
    for row in rows:
        comparison.row(row)
    comparison.finish()
    return comparison


@settings(max_examples=80, deadline=None)
@given(logs(), st.integers(0, 60))
def test_what_the_oracle_wrote_is_equal_wherever_bounded_runs_ended(log: Log, n: int) -> None:
    comparison = compared(log, [found(row) for row in written(log, n, len(log.records))])
    assert comparison.differences == []
    apart = {"preview of a session"} if isinstance(log.pipeline.window, Session) else set()
    assert set(comparison.fates) <= {"equal"} | apart


@settings(max_examples=40, deadline=None)
@given(logs(), st.data())
def test_one_changed_cell_or_stamp_and_one_row_too_few_or_too_many_are_each_found(
    log: Log, data: st.DataObject
) -> None:
    rows = [row for row in written(log) if row["final"] or not isinstance(log.pipeline.window, Session)]
    if not rows:
        return
    i = data.draw(st.integers(0, len(rows) - 1))
    good = [found(row) for row in rows]
    victim = rows[i]

    def kinds(*instead: FoundRow) -> set[tuple[str, str | None]]:
        comparison = compared(log, [*good[:i], *instead, *good[i + 1 :]])
        assert comparison.problems == len(comparison.differences)
        return {(d.kind, d.column) for d in comparison.differences}

    assert kinds(found(victim)) == set()
    assert kinds(found(victim, duplicates=victim["duplicates"] + 1)) == {("cell", "duplicates")}
    stamp = next(iter(good[i].written.values()))
    assert kinds(FoundRow(victim, {**good[i].written, "duplicates": 1 << 50})) == {("write timestamp", "duplicates")}
    assert kinds(FoundRow(victim, dict.fromkeys(STAMPED, 1 << 50))) == {("write timestamp", None)}
    assert kinds(FoundRow(victim, dict.fromkeys(STAMPED, stamp), expires_ms=1)) == {("expiry", None)}
    assert kinds() == {("missing", None)}
    elsewhere = victim | {"window_start": 10**9}
    assert kinds(found(victim), found(elsewhere)) == {("not expected", None)}


@settings(max_examples=80, deadline=None)
@given(logs(), st.integers(1, 4), st.integers(-5, 5))
def test_a_sample_has_the_rows_of_its_keys_and_no_others(log: Log, size: int, seed: int) -> None:
    sample = Sample(size, seed)
    part = Recompute(log.pipeline, partition=0, upstream_partitions=log.upstream_partitions, wants=sample.admits)
    sample.evicted = part.forget
    for record in log.records:
        part.handle(record)
    whole = recompute(log)
    assert sample.keys <= whole.keys.keys()
    assert len(sample) == min(size, len(whole.keys))
    assert part.finals.keys() <= sample.keys
    for values in sample.keys:
        assert sample.would_hold(values)
        assert repr(part.finals.get(values)) == repr(whole.finals.get(values))
        assert part.keys[values].windows == whole.keys[values].windows
        assert (part.keys[values].K, part.keys[values].C) == (whole.keys[values].K, whole.keys[values].C)
    assert sum(sample.would_hold(values) for values in whole.keys) == len(sample)


@given(st.lists(st.integers(0, 100)), st.integers(1, 10), st.integers(0, 3))
def test_a_sample_does_not_depend_on_the_order_in_which_keys_come(keys: list[int], size: int, seed: int) -> None:
    forwards, backwards = Sample(size, seed), Sample(size, seed)
    for key in keys:
        forwards.admits((key,))
    for key in reversed(keys):
        backwards.admits((key,))
    assert forwards.keys == backwards.keys
    assert len(forwards) == min(size, len(set(keys)))


@settings(max_examples=50, deadline=None)
@given(logs())
def test_a_span_keeps_the_windows_that_start_in_it(log: Log) -> None:
    whole, part = recompute(log), recompute(log, span=Span(0, 10), wants=every_key)
    starts = [row["window_start"] for row in part.final_rows()] + [w.start for _, w in part.open_windows()]
    assert all(0 <= start < 10 for start in starts)
    assert len(starts) == sum(
        0 <= start < 10
        for start in [
            *(row["window_start"] for row in whole.final_rows()),
            *(w.start for _, w in whole.open_windows()),
        ]
    )


def one_final_row() -> tuple[Log, Row]:
    from fluvial.oracle.records import Record
    from support.logs import FIELDS

    pipeline = Pipeline(
        source="events", event="test.Event", key=("device",), window=Tumbling(10), aggregates=("count",),
        table=Table("tens", ("device",)), event_time="at", lateness_ms=0, early_ms=0,
    )  # fmt: skip
    event = dict.fromkeys(FIELDS) | {"device": "a", "at": 3}
    records = (
        Record(0, 5, "event", b"a", event),
        Record(1, 15, "event", b"a", event | {"at": 13}),
    )
    log = Log(pipeline, 0, records)
    (row,) = written(log)
    return log, row


def test_what_cannot_be_judged_is_counted_apart() -> None:
    log, row = one_final_row()
    at = ("a",), 0
    newer = found(row | {"window_start": 10, "window_end": 20, "final": False, "source_offset": 7})
    assert compared(log, [found(row), newer]).fates == {"equal": 1, "not settled": 1}
    assert compared(log, [], unsettled={at}).fates == {"not settled": 1}
    assert compared(log, [found(row, count=9)], unsettled={at}).fates == {"not settled": 1}
    assert compared(log, [], set_aside={at}).fates == {"dead-lettered by the sink": 1}
    assert compared(log, [], whole_from={0: 5}).fates == {"older than the log": 1}
    replayed = compared(log, [found(row | {"generation": 3, "count": 2})])
    assert (replayed.fates, replayed.generations, replayed.problems) == ({"replayed": 1}, {3: 1}, 0)


def test_a_row_of_an_older_generation_is_wrong_where_the_present_one_has_it_and_left_alone_elsewhere() -> None:
    log, row = one_final_row()
    part = recompute(log, generation=2)
    now = Circumstances(2, {0: 2}, 0)
    comparison = Comparison(log.pipeline, [part], now, limit=10)
    comparison.row(found(row))
    comparison.row(found(row | {"window_start": 500}))
    comparison.finish()
    assert comparison.fates == {"different": 1, "of an older generation": 1}
    assert {d.column for d in comparison.differences} == {"generation", None}


def test_rows_past_their_retention_may_be_gone_and_kept_ones_must_say_when_they_go() -> None:
    log, row = one_final_row()
    log = replace(log, pipeline=replace(log.pipeline, table=replace(log.pipeline.table, retention_days=1)))
    day = 86_400_000
    missing = Comparison(log.pipeline, [recompute(log)], Circumstances(0, {0: 2}, 2 * day), limit=10)
    missing.finish()
    assert missing.fates == {"expired": 1}
    right = FoundRow(row, dict.fromkeys(STAMPED, row["source_offset"]), expires_ms=row["window_end"] + day + 999)
    assert compared(log, [right]).problems == 0
    assert [d.kind for d in compared(log, [found(row)]).differences] == ["expiry"]


def test_differences_are_counted_beyond_the_limit() -> None:
    log, row = one_final_row()
    comparison = Comparison(log.pipeline, [recompute(log)], Circumstances(0, {0: 2}, 0), limit=1)
    comparison.row(found(row, count=5, duplicates=3))
    comparison.finish()
    assert (comparison.problems, len(comparison.differences)) == (2, 1)


@settings(max_examples=40, deadline=None)
@given(logs())
def test_a_replayed_window_is_made_of_all_of_its_events_late_ones_too(log: Log) -> None:
    if isinstance(log.pipeline.window, Session):
        return
    part = recompute(log, replayed=[Span()])
    end = log.records[-1].offset if log.records else 0
    # A pipeline that is never too late, and never idle, aggregates the same events and leaves all windows open.
    patient = replace(log.pipeline, lateness_ms=1 << 60, idle_timeout_ms=1 << 61, early_ms=0)
    whole = run(patient, log.records, upstream_partitions=log.upstream_partitions, exhausted=True)
    assert {row["final"] for row in whole.rows} <= {False}
    for row in whole.rows:
        values = tuple(row[name] for name in log.pipeline.key)
        assert repr(part.replayed_row(values, row["window_start"], offset=end)) == repr(
            row | {"final": True, "source_offset": end}
        )


def test_what_a_replay_wrote_is_compared_by_the_rule_that_it_followed() -> None:
    log, row = one_final_row()
    by_replay = row | {"generation": 3}
    part = recompute(log, replayed=[Span(0, 10)])
    for lateness, count, fates in (
        ("unlimited", 1, {"equal": 1}),
        ("unlimited", 2, {"different": 1}),
        ("declared", 1, {"equal": 1}),
        ("declared", 2, {"different": 1}),
        ("5000", 2, {"replayed": 1}),
    ):
        compare = compared(log, [found(by_replay, count=count)], part, replays={3: lateness})
        assert (compare.fates, compare.generations) == (fates, {3: 1})
    beyond = found(by_replay | {"source_offset": 9})
    assert compared(log, [beyond], part, replays={3: "unlimited"}).fates == {"replayed": 1}
    elsewhere = found(by_replay | {"window_start": 500})
    assert compared(log, [found(row), elsewhere], part, replays={3: "unlimited"}).fates == {
        "equal": 1,
        "not expected": 1,
    }


def test_an_event_has_to_be_valid_for_every_pipeline_that_the_worker_runs_on_the_topic() -> None:
    log, _ = one_final_row()
    other = replace(log.pipeline, value="value", aggregates=("sum",), table=Table("sums", ("device",)))
    assert recompute(log).result.ledger.aggregated == 2
    assert recompute(log, beside=[other]).result.ledger.dead_lettered == 2
