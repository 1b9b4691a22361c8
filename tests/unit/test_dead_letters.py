"""Which dead letters are meant, what became of them, and what is sent again: pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.records import RowError
from fluvial.schemas.dead_letters import ROOM_BYTES, dead_letters
from fluvial.services.dead_letter_check import records_of
from fluvial.services.dead_letter_log import mark_value, parse_mark
from fluvial.services.dead_letter_redrive import Outcome, Rules, paced, sendable
from fluvial.services.dead_letter_topics import Facts
from fluvial.services.dead_letters import (
    BATCH_BYTES,
    LEFT_OUT,
    DeadLetterError,
    Distinct,
    Letter,
    Mark,
    Place,
    Summary,
    Wanted,
    in_batches,
    mark_key,
    parse_at,
    place_of_key,
    provenance,
    state_of,
)
from fluvial.transport.headers import all_headers

HOUR = 3_600_000
NOW = 1_760_000_000_000


def letter(offset: int = 7, topic: str = "iot.readings", **changes: object) -> Letter:
    fields: dict = {
        "place": Place(topic, 1, offset, NOW + offset),
        "key": b"sensor-1",
        "payload": b"payload",
        "headers": (("gateway", b"g1"),),
        "stage": "decode",
        "error_type": "UnknownSchema",
        "error_message": f"cannot decode {topic}[1]@{offset}: unknown schema id 99; kept in {topic}.dead-letter",
        "set_aside": NOW + HOUR,
    }
    return Letter(**(fields | changes))


def redriven(times: int) -> Letter:
    headers = (("fluvial-redriven-from", b"iot.readings[1]@3"), ("fluvial-redriven-times", str(times).encode()))
    return letter(headers=headers)


def test_the_cause_is_the_message_without_the_place_around_it() -> None:
    assert letter().cause == "unknown schema id 99"
    assert letter(error_message="something else").cause == "something else"


def test_a_letter_is_open_then_what_its_mark_says_and_failed_again_when_it_came_back() -> None:
    assert state_of(letter(), {}) == "open"
    assert state_of(letter(), {letter().place: Mark("redriven", NOW)}) == "redriven"
    assert state_of(redriven(1), {}) == "failed again"
    assert state_of(redriven(1), {letter().place: Mark("discarded", NOW)}) == "discarded"


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"1" * 30, None])
def test_a_header_that_is_no_number_of_attempts_counts_as_none(text: bytes | None) -> None:
    assert letter(headers=(("fluvial-redriven-times", text),)).attempts == 0


def test_an_offset_of_a_topic_that_was_re_created_is_another_letter() -> None:
    first, second = letter(), letter(place=Place("iot.readings", 1, 7, NOW + HOUR))
    assert state_of(second, {first.place: Mark("redriven", NOW)}) == "open"


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Wanted(), True),
        (Wanted(partitions=frozenset({1, 2})), True),
        (Wanted(partitions=frozenset({0})), False),
        (Wanted(at=frozenset({(1, 7)})), True),
        (Wanted(at=frozenset({(1, 8)})), False),
        (Wanted(stages=frozenset({"decode"})), True),
        (Wanted(stages=frozenset({"write"})), False),
        (Wanted(errors=("unknownschema",)), True),
        (Wanted(errors=("nothing", "ID 99")), True),
        (Wanted(errors=("nothing",)), False),
        (Wanted(since=NOW + 7), True),
        (Wanted(since=NOW + 8), False),
        (Wanted(until=NOW + 8), True),
        (Wanted(until=NOW + 7), False),
        (Wanted(states=frozenset({"open"})), True),
        (Wanted(states=frozenset({"redriven"})), False),
        (Wanted(stages=frozenset({"decode"}), partitions=frozenset({0})), False),
    ],
)
def test_a_letter_is_meant_when_it_fits_everything_that_is_given(wanted: Wanted, takes: bool) -> None:
    assert wanted.takes(letter(), "open") is takes


def test_states_alone_are_no_filter() -> None:
    assert Wanted(states=frozenset({"open"})).everything
    assert not Wanted(stages=frozenset({"decode"})).everything


def test_a_record_that_was_set_aside_again_counts_once() -> None:
    distinct = Distinct()
    assert [distinct(x) for x in (letter(1), letter(2), letter(1))] == [True, True, False]
    assert distinct.repeats == 1


@given(st.permutations(range(40)), st.integers(0, 50))
def test_a_summary_counts_all_and_keeps_the_newest(order: list[int], keep: int) -> None:
    summary = Summary(keep)
    for offset in order:
        summary.add(letter(offset, stage="decode" if offset % 2 else "validate"), "open")
    assert [x.place.offset for x, _ in summary.newest] == sorted(order)[40 - min(keep, 40) :]
    groups = {g.stage: (g.records, g.first - NOW, g.last - NOW, g.partitions) for g in summary.groups.values()}
    assert groups == {"decode": (20, 1, 39, {1: 20}), "validate": (20, 0, 38, {1: 20})}


@given(
    st.from_regex(r"[a-zA-Z0-9._-]{1,60}", fullmatch=True), st.integers(0, 2**31), st.integers(0, 2**62), st.integers()
)
def test_a_mark_is_read_as_it_was_written(topic: str, partition: int, offset: int, timestamp: int) -> None:
    place = Place(topic, partition, offset, timestamp)
    mark = Mark("discarded", NOW, 'because of "ä"', 3)
    assert place_of_key(mark_key(place)) == place
    assert parse_mark(mark_value(mark)) == mark


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[]", b"null", b'{"state": "redriven"}'])
def test_what_is_no_mark_is_none(value: bytes | None) -> None:
    assert parse_mark(value) is None
    assert place_of_key(b"no place") is None


def test_what_is_sent_again_says_where_it_comes_from_and_how_often() -> None:
    headers = provenance(letter(), NOW + 5)
    assert headers == (
        ("gateway", b"g1"),
        ("fluvial-redriven-from", b"iot.readings[1]@7"),
        ("fluvial-redriven-times", b"1"),
        ("fluvial-redriven-at", str(NOW + 5).encode()),
        ("fluvial-redriven-timestamp", str(NOW + 7).encode()),
    )
    again = dict(provenance(letter(offset=90, headers=headers), NOW + 9))
    assert again["fluvial-redriven-from"] == b"iot.readings[1]@7"
    assert again["fluvial-redriven-times"] == b"2"
    assert again["fluvial-redriven-timestamp"] == str(NOW + 7).encode()


def test_what_was_redriven_often_enough_is_left() -> None:
    outcome = Outcome()
    batches = list(sendable([letter(), redriven(1), redriven(2)], Rules(2, None), outcome, 10))
    assert [[x.attempts for x in b] for b in batches] == [[0, 1]]
    assert outcome.exhausted == 1


def test_what_was_not_copied_is_never_sent() -> None:
    outcome = Outcome()
    assert list(sendable([letter(payload=None, left_out=5_000_000)], Rules(1, None), outcome, 10)) == []
    assert list(outcome.failing.values()) == [(1, LEFT_OUT)]


def test_batches_are_of_one_topic_and_bounded_in_number_and_bytes() -> None:
    letters = [letter(i, topic) for topic in ("a", "b") for i in range(5)]
    assert [len(b) for b in in_batches(letters, 3)] == [3, 2, 3, 2]
    large = [letter(i, payload=bytes(BATCH_BYTES // 2)) for i in range(5)]
    assert [len(b) for b in in_batches(large, 100)] == [2, 2, 1]


def test_a_rate_is_kept_over_all_batches() -> None:
    now = [0.0]
    batches = paced([[letter()] * 5] * 4, 10.0, lambda: now[0], lambda s: now.__setitem__(0, now[0] + s))
    assert [(now[0], len(batch)) for batch in batches] == [(0.0, 5), (0.5, 5), (1.0, 5), (1.5, 5)]


@pytest.mark.parametrize(
    ("facts", "original", "expected"),
    [
        (Facts(1, stamps=False, keeps_ms=HOUR), NOW - 1, NOW - 1),
        (Facts(1, stamps=False, keeps_ms=None), NOW - 90 * HOUR, NOW - 90 * HOUR),
        (Facts(1, stamps=False, keeps_ms=HOUR), NOW - HOUR - 1, NOW),
        (Facts(1, stamps=True, keeps_ms=HOUR), NOW - 1, NOW),
        (Facts(1, stamps=False, keeps_ms=None), -1, NOW),
    ],
)
def test_the_timestamp_is_kept_where_the_topic_lets_it_and_the_record_lives(
    facts: Facts, original: int, expected: int
) -> None:
    assert facts.timestamp(original, NOW) == expected


@pytest.mark.parametrize(("text", "place"), [("1:7268", (1, 7268)), ("0@3", (0, 3))])
def test_a_place_is_a_partition_and_an_offset(text: str, place: tuple[int, int]) -> None:
    assert parse_at(text) == place


@pytest.mark.parametrize("text", ["", "7268", "a:b", "1:-1", "1:2:3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DeadLetterError, match="is no place"):
        parse_at(text)


def test_a_letter_becomes_the_record_it_is_of_and_that_the_same_letter_again() -> None:
    letters = [letter(1), letter(2, key=None, payload=None, headers=()), letter(3, headers=(("a", None), ("ä", b"")))]
    records = records_of(letters, [x.place.timestamp for x in letters])
    assert [all_headers(records, i) for i in range(3)] == [list(x.headers) for x in letters]
    made = dead_letters(records, [RowError(i, "write", "E", "why") for i in range(3)])
    assert [(d.key, d.fields["payload"], d.fields["timestamp"]) for d in made] == [
        (x.key, x.payload, x.place.timestamp) for x in letters
    ]
    assert made[0].fields["error_message"] == "cannot write iot.readings[1]@1: why; kept in iot.readings.dead-letter"


@pytest.mark.parametrize(
    ("changes", "kept", "left_out"),
    [
        ({"payload": bytes(ROOM_BYTES // 2)}, (True, True, True), 0),
        ({"payload": bytes(ROOM_BYTES)}, (False, True, True), ROOM_BYTES),
        ({"key": bytes(ROOM_BYTES)}, (True, True, False), 2 * ROOM_BYTES),
        ({"headers": (("h", bytes(ROOM_BYTES)),)}, (True, False, True), ROOM_BYTES + 1),
    ],
)
def test_what_is_too_large_for_a_copy_is_left_out(changes: dict, kept: tuple[bool, bool, bool], left_out: int) -> None:
    one = letter(**changes)
    [made] = dead_letters(records_of([one], [NOW]), [RowError(0, "decode", "E", "why")])
    f = made.fields
    assert (f["payload"] is not None, bool(f["headers"]), f["key"] is not None) == kept
    assert f["payload_left_out"] == left_out
