"""What the contract promises of every log, asked of the oracle: the contract itself is consistent."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.oracle.oracle import run
from fluvial.oracle.records import OracleResult, Row
from support.logs import Log, logs


def answer(log: Log, records: int | None = None, *, exhausted: bool = False) -> OracleResult:
    prefix = log.records[:records]
    return run(log.pipeline, prefix, upstream_partitions=log.upstream_partitions, exhausted=exhausted)


def window_of(log: Log, row: Row) -> tuple[Any, ...]:
    return (*(row[name] for name in log.pipeline.key), row["window_start"])


def values_of(row: Row) -> str:
    # repr tells −0.0 from 0.0 and calls every NaN the same.
    return repr(row)


@settings(max_examples=150, deadline=None)
@given(logs(), st.booleans())
def test_every_record_has_one_fate_and_every_late_or_dead_one_a_place(log: Log, exhausted: bool) -> None:
    result = answer(log, exhausted=exhausted)
    assert result.ledger.adds_up()
    assert result.ledger.records == len(log.records)
    assert result.ledger.late == len(result.late)
    assert result.ledger.dead_lettered == len(result.dead)
    assert all(late.late_by_ms > 0 for late in result.late)


@settings(max_examples=150, deadline=None)
@given(logs())
def test_two_rows_of_a_window_never_share_an_offset_with_different_values_and_the_final_one_is_last(log: Log) -> None:
    last: dict[tuple[Any, ...], Row] = {}
    for row in answer(log, exhausted=True).rows:
        before = last.get(window_of(log, row))
        if before is not None:
            assert not before["final"]
            assert before["source_offset"] <= row["source_offset"]
            if before["source_offset"] == row["source_offset"]:
                assert values_of(before) == values_of(row)
        last[window_of(log, row)] = row


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(0, 60))
def test_what_follows_never_changes_what_was_written(log: Log, n: int) -> None:
    part, whole = answer(log, n), answer(log)
    assert repr(part.rows) == repr(whole.rows[: len(part.rows)])
    assert repr(part.late) == repr(whole.late[: len(part.late)])


@settings(max_examples=100, deadline=None)
@given(logs())
def test_every_aggregated_event_of_a_partitioning_window_is_counted_in_exactly_one_row(log: Log) -> None:
    result = answer(log, exhausted=True)
    newest = {window_of(log, row): row for row in result.rows}
    hops = getattr(log.pipeline.window, "hop_ms", None)
    if hops is None and "count" in log.pipeline.aggregates:
        assert sum(row["count"] for row in newest.values()) == result.ledger.aggregated
        assert sum(row["duplicates"] for row in newest.values()) == result.ledger.duplicates
