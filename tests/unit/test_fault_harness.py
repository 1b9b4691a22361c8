"""The pure parts of the fault harness: loads from seeds, what is checked of the log, the report."""

import random
from dataclasses import asdict

import pytest

from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.transport.publisher import OutRecord
from support.faults.feeder import Journal
from support.faults.invariants import Message, check_log
from support.faults.load import Chunk, Load, Shape
from support.faults.report import page, percentile
from support.faults.trial import Outcome

READINGS = DatumWriter(load_schema("fluvial.iot.SensorReading"), 1)
POSTS = DatumWriter(load_schema("fluvial.social.SocialPost"), 2)


def chunks(seed: int, shape: Shape | None = None) -> list[Chunk]:
    load = Load(random.Random(seed), shape or Shape(events=500, seconds=2.0), 3, ("r", READINGS), ("p", POSTS))
    return list(load.chunks())


def test_a_seed_gives_the_same_load_and_another_one_another() -> None:
    assert chunks(1, Shape(events=500, seconds=2.0, poison=0.0)) == chunks(
        1, Shape(events=500, seconds=2.0, poison=0.0)
    )
    assert chunks(1) != chunks(2)


def test_a_load_comes_in_the_order_of_its_times_and_has_both_topics() -> None:
    found = chunks(3)
    assert [c.at for c in found] == sorted(c.at for c in found)
    assert {c.topic for c in found} == {"r", "p"}
    assert 400 < sum(len(c.records) for c in found) < 700


SENT = [OutRecord(b"a", b"1"), OutRecord(b"b", b"2"), OutRecord(b"a", b"3"), OutRecord(b"a", b"4")]


def log_of(records: list[OutRecord]) -> list[Message]:
    return [Message(0, i, r.key, r.value) for i, r in enumerate(records)]


def journal(acknowledged: int) -> Journal:
    return Journal({"t": list(SENT)}, {"t": SENT[:acknowledged]})


def test_what_was_acknowledged_is_in_the_log_and_what_was_not_may_be() -> None:
    assert check_log(journal(4), "t", log_of(SENT)) == []
    assert check_log(journal(2), "t", log_of(SENT)) == []
    assert check_log(journal(2), "t", log_of(SENT[:2])) == []


@pytest.mark.parametrize(
    ("records", "invariant"),
    [
        (SENT[:3], "I1"),
        ([*SENT, OutRecord(b"a", b"5")], "I1"),
        ([SENT[2], SENT[1], SENT[0], SENT[3]], "I5"),
    ],
)
def test_a_log_that_lost_invented_or_reordered_something_is_found_out(records: list[OutRecord], invariant: str) -> None:
    lines = check_log(journal(4), "t", log_of(records))
    assert [line[:2] for line in lines] == [invariant]


def test_a_record_that_was_sent_again_breaks_no_order() -> None:
    assert check_log(journal(4), "t", log_of([*SENT, *SENT])) == []


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(v) for v in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 0.99) == 7.0


def test_the_report_has_a_line_for_each_row_and_every_violation() -> None:
    good = Outcome(1, "a kill", 5, events=1000, faults=["1.0 kill"], recoveries=[2.0, 4.0])
    bad = Outcome(2, "another", 6, events=10, violations=["I2: a cell differs"])
    text = page([asdict(o) for o in (good, bad)])
    assert "| 1 | a kill | 1 | 1 | 1,000 | 0 | 0 | 2 | 2.0 | 4.0 | 4.0 | 0 |" in text
    assert "- row 2, seed 6: I2: a cell differs" in text
