"""The books against the log: what is wrong is said in words, and what cannot be known is no fault."""

from dataclasses import replace

import pytest

from fluvial.services.audit_ledger import Kept, LogAccount, against_recomputed, judge
from fluvial.services.ledger import LedgerLine
from fluvial.services.meter import Meter, duration

LEDGER = LedgerLine("readings", 0, "minute", 100, 120, 95, 5, 80, 4, 4, 2)
LOG = LogAccount(begin=0, end=120, covered=100, present=95)
LATE = Kept("readings.late", 4, cut=False)
DEAD = Kept("readings.dead-letter", 2, cut=False)
PLACE = ("readings", 0, "minute")


def test_books_that_add_up_have_no_problem_and_gaps_are_only_noted() -> None:
    line = judge(PLACE, LEDGER, LOG, LATE, DEAD)
    assert line.problems == ()
    assert line.notes == ("5 offsets hold no record (transaction markers, compaction)",)
    assert line.waiting == 20


@pytest.mark.parametrize(
    ("ledger", "log", "late", "dead", "words"),
    [
        ({"late": 3}, {}, {"records": 3}, {}, "1 of 95 records read have no fate"),
        ({"aggregated": 82}, {}, {}, {}, "2 more fates than the 95 records read"),
        ({"records": 94, "ticks": 4}, {}, {}, {}, "1 of the log's 95 records were not counted"),
        ({"records": 96, "ticks": 6}, {}, {}, {}, "1 more records were counted than the log has (95)"),
        ({}, {}, {"records": 3}, {}, "1 of 4 late events are not in readings.late"),
        ({}, {}, {"records": 6}, {}, "readings.late has 6 late events of it, the ledger 4"),
        ({}, {}, {"records": 5, "cut": True}, {}, "readings.late has 5 late events of it, the ledger 4"),
        ({}, {}, {}, {"records": 0}, "2 of 2 dead letters are not in readings.dead-letter"),
        ({}, {"end": 60}, {}, {}, "covers offset 100 and the log ends at 60: was the topic made anew?"),
        ({}, {"begin": 110, "present": 0}, {}, {}, "10 offsets were deleted from the log before they were read"),
    ],
)
def test_each_thing_that_does_not_add_up_is_said(
    ledger: dict[str, int], log: dict[str, int], late: dict[str, int], dead: dict[str, int], words: str
) -> None:
    line = judge(PLACE, replace(LEDGER, **ledger), replace(LOG, **log), replace(LATE, **late), replace(DEAD, **dead))
    assert len(line.problems) == 1
    assert words in line.problems[0]


def test_what_retention_has_taken_cannot_be_counted_and_is_no_fault() -> None:
    cut = replace(LOG, begin=40, present=55)
    line = judge(PLACE, LEDGER, cut, replace(LATE, records=1, cut=True), replace(DEAD, records=0, cut=True))
    assert line.problems == ()
    assert [note.partition(" ")[0] for note in line.notes] == ["the", "5", "readings.late", "readings.dead-letter"]
    too_few = judge(PLACE, replace(LEDGER, records=50, ticks=0, aggregated=40), cut, LATE, DEAD)
    assert too_few.problems == ("5 of the log's 55 records were not counted",)


def test_dead_letters_of_an_older_generation_are_no_fault_of_this_one() -> None:
    assert judge(PLACE, LEDGER, LOG, LATE, replace(DEAD, records=5)).problems
    assert judge(PLACE, LEDGER, LOG, LATE, replace(DEAD, records=5, shared=True)).problems == ()
    assert judge(PLACE, LEDGER, LOG, LATE, replace(DEAD, records=1, shared=True)).problems


def test_a_partition_without_a_checkpoint_is_waiting_or_empty() -> None:
    nothing = replace(LOG, covered=0, present=0)
    assert judge(PLACE, None, nothing, LATE, DEAD).notes == ("nothing read yet",)
    assert judge(PLACE, None, nothing, LATE, DEAD).waiting == 120
    assert judge(PLACE, None, replace(nothing, end=0), LATE, DEAD).notes == ("empty",)


def test_the_oracles_own_account_is_compared_fate_by_fate() -> None:
    assert against_recomputed(LEDGER, {"records": 95, "late": 4}) == []
    assert against_recomputed(LEDGER, {"dead_lettered": 3}) == ["dead-lettered: the ledger has 2, recomputed are 3"]


def test_a_meter_tells_the_rate_and_the_time_left_now_and_then() -> None:
    now = [0.0]
    told: list[str] = []
    meter = Meter(
        lambda step: told.append(f"{step.message} {step.done}/{step.total}"), "x", "records", 1_000, lambda: now[0]
    )
    for _ in range(4):
        now[0] += 0.125
        meter.add(100)
    now[0] = 2.0
    meter.finish()
    assert told == [
        "records, 800/s, 1 s left 200/1000",
        "records, 800/s, 1 s left 400/1000",
        "ready: 400 records, 200/s 0/0",
    ]


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 89, 90, 3600, 90 * 60, 12_345)] == [
        "0 s", "89 s", "2 min", "60 min", "1 h 30 min", "3 h 26 min",
    ]  # fmt: skip
