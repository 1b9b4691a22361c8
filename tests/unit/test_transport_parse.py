"""Fetched bytes to columns: recorded fetches, batches built by aiokafka, and damage."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.errors import CorruptRecordBatchError
from fluvial.records import RecordColumns
from fluvial.transport.headers import header_value, null_value_longs
from fluvial.transport.parse import parse
from fluvial.transport.walk import ABORT, COMMIT, readable, walk
from support.record_batches import Rec, build, marker, sealed

FETCHES = Path(__file__).parent.parent / "data" / "fetches"
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4


def columns(raw: bytes, *, first: int = 0, aborted: list[tuple[int, int]] | None = None) -> RecordColumns:
    """Parse a fetch as the transport does."""
    headers = walk(raw)
    after = int(headers.next_offset[-1])
    chosen = np.flatnonzero(readable(headers, aborted or []) & (headers.next_offset > first))
    return parse("readings", 3, first, raw, headers, chosen, after)


def rows(c: RecordColumns) -> list[tuple[int, int, bytes | None, bytes | None]]:
    return [(int(c.offset[i]), int(c.timestamp[i]), c.key.bytes_at(i), c.value.bytes_at(i)) for i in range(len(c))]


@pytest.mark.parametrize("case", sorted(p.stem for p in FETCHES.glob("*.bin")))
def test_a_recorded_fetch_reads_as_librdkafka_reads_it(case: str) -> None:
    raw = (FETCHES / f"{case}.bin").read_bytes()
    known = json.loads((FETCHES / f"{case}.json").read_text())
    c = columns(raw, first=known["offset"], aborted=[(p, o) for p, o in known["aborted"]])
    expected = [r for r in known["records"] if r["offset"] < c.next_offset]  # a response holds one segment at most

    def unhex(text: str | None) -> bytes | None:
        return None if text is None else bytes.fromhex(text)

    assert len(c) > 0
    assert rows(c) == [(r["offset"], r["timestamp"], unhex(r["key"]), unhex(r["value"])) for r in expected]
    for row, record in enumerate(expected):
        last = {name: unhex(value) for name, value in record["headers"]}
        for name in ("a", "b", "fluvial-tick"):
            assert header_value(c, row, name) == last.get(name)
    ticks = null_value_longs(c, "fluvial-tick")
    for row, record in enumerate(expected):
        wanted = [bytes.fromhex(v) for k, v in record["headers"] if k == "fluvial-tick" and record["value"] is None]
        assert (int(ticks.values[row]), bool(ticks.valid[row])) == ((int(wanted[0]), True) if wanted else (0, False))


def test_the_recorded_compaction_left_gaps() -> None:
    c = columns((FETCHES / "compacted.bin").read_bytes())
    assert (np.diff(c.offset) > 1).any()
    assert c.next_offset == c.offset[-1] + 1


texts = st.one_of(st.none(), st.binary(max_size=40))
names = st.sampled_from(["a", "fluvial-tick", "fluvial-upstream", "ü"])
records = st.lists(
    st.builds(
        Rec,
        offset_delta=st.just(0),
        timestamp=st.integers(0, 1 << 42),
        key=texts,
        value=texts,
        headers=st.lists(st.tuples(names, texts), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(records, st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=5),
    st.integers(0, 1 << 40),
    st.integers(0, 40),
    st.booleans(),
)
def test_any_batches_read_back_with_gaps_from_any_offset(batches, base: int, skip: int, log_append: bool) -> None:
    raw, expected, at = b"", [], base
    for recs, codec, gap in batches:
        recs = [Rec(i, r.timestamp, r.key, r.value, r.headers) for i, r in enumerate(recs)]
        raw += build(
            recs,
            base_offset=at,
            codec=codec,
            last_offset_delta=len(recs) - 1 + gap,
            extra_attributes=8 if log_append else 0,
            max_timestamp=77 if log_append else None,
        )
        expected += [(at + r.offset_delta, 77 if log_append else r.timestamp, r.key, r.value) for r in recs]
        at += len(recs) + gap
    c = columns(raw, first=base + skip)
    assert rows(c) == [row for row in expected if row[0] >= base + skip]
    assert c.next_offset == at


@settings(max_examples=60, deadline=None)
@given(records)
def test_headers_are_found_by_name_the_last_one_wins(recs: list[Rec]) -> None:
    c = columns(build([Rec(i, 0, r.key, r.value, r.headers) for i, r in enumerate(recs)], codec=LZ4))
    for name in ("a", "fluvial-tick", "ü", "none"):
        assert [header_value(c, i, name) for i in range(len(c))] == [dict(r.headers).get(name) for r in recs]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"1700000000000", 1_700_000_000_000),
        (b"-5", -5),
        (b"9223372036854775807", (1 << 63) - 1),
        (b"9223372036854775808", None),
        (b"99999999999999999999", None),
        (b"", None),
        (b"-", None),
        (b"1.5", None),
        (b" 1", None),
        (None, None),
    ],
)
def test_a_tick_is_a_decimal_int64(text: bytes | None, value: int | None) -> None:
    tick = Rec(0, 0, None, None, (("fluvial-tick", text),))
    event = Rec(1, 0, None, b"a value", (("fluvial-tick", b"7"),))
    longs = null_value_longs(columns(build([tick, event])), "fluvial-tick")
    assert longs.valid.tolist() == [value is not None, False]
    assert longs.values.tolist() == [value or 0, 0]


def test_a_cut_off_batch_at_the_end_is_left_for_the_next_fetch() -> None:
    whole = build([Rec(0, 0, None, b"1")])
    for cut in (1, 16, 17, 40, len(whole) - 1):
        c = columns(whole + build([Rec(0, 0, None, b"2")], base_offset=1)[:cut])
        assert (rows(c)[-1][3], c.next_offset) == (b"1", 1)


def test_an_empty_batch_that_compaction_left_moves_the_position() -> None:
    empty = bytearray(build([Rec(0, 0, None, b"1")], base_offset=5, last_offset_delta=9)[:61])
    empty[8:12] = (61 - 12).to_bytes(4, "big")
    empty[57:61] = bytes(4)
    c = columns(sealed(empty))
    assert (len(c), c.next_offset) == (0, 15)


def test_aborted_batches_end_at_their_producers_abort_marker() -> None:
    def data(offset: int, producer: int) -> bytes:
        return build([Rec(0, 0, None, b"%d" % offset)], base_offset=offset, producer_id=producer, transactional=True)

    raw = b"".join(
        [
            data(0, 1),  # aborted
            data(1, 2),  # committed
            data(2, 1),  # aborted
            marker(3, 1, commit=False),
            data(4, 1),  # a later transaction of the same producer: committed
            marker(5, 2, commit=True),
            data(6, 2),  # aborted
            marker(7, 1, commit=True),
            build([Rec(0, 0, None, b"8")], base_offset=8, producer_id=2),  # idempotent, outside any transaction
            marker(9, 2, commit=False),
        ]
    )
    c = columns(raw, aborted=[(2, 6), (1, 0)])
    assert [row[3] for row in rows(c)] == [b"1", b"4", b"8"]
    assert c.next_offset == 10
    assert [int(x) for x in walk(raw).control if x >= 0] == [ABORT, COMMIT, COMMIT, ABORT]


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
@settings(max_examples=40, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_noticed(codec: int, position: float, flip: int) -> None:
    raw = bytearray(build([Rec(i, 0, b"key", b"value" * 9) for i in range(5)], codec=codec))
    at = 17 + int(position * (len(raw) - 17))  # the offset, the length, the leader epoch and the magic are not covered
    raw[at] ^= flip
    with pytest.raises(CorruptRecordBatchError, match="does not match its checksum"):
        columns(bytes(raw))


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_under_a_right_checksum_is_an_error_or_other_records_never_a_crash(codec: int, data) -> None:
    raw = bytearray(build([Rec(i, 5, b"key", b"value", (("h", b"1"),)) for i in range(4)], codec=codec))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(57, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        c = columns(sealed(raw))
    except CorruptRecordBatchError:
        return
    for i in range(len(c)):
        c.key.bytes_at(i), c.value.bytes_at(i), header_value(c, i, "h")


def test_old_message_formats_are_refused() -> None:
    raw = bytearray(build([Rec(0, 0, None, b"1")]))
    raw[16] = 1
    with pytest.raises(CorruptRecordBatchError, match="message format v1"):
        walk(bytes(raw))


@pytest.mark.parametrize("length", [-1, 0, 48])
def test_an_impossible_length_is_refused(length: int) -> None:
    raw = bytearray(build([Rec(0, 0, None, b"1")]))
    raw[8:12] = (length & 0xFFFFFFFF).to_bytes(4, "big")
    with pytest.raises(CorruptRecordBatchError, match="impossible length"):
        walk(bytes(raw))


def test_a_record_count_that_cannot_be_is_refused_before_anything_is_allocated() -> None:
    raw = bytearray(build([Rec(0, 0, None, b"1")]))
    raw[57:61] = (0x7FFFFFFF).to_bytes(4, "big")
    with pytest.raises(CorruptRecordBatchError, match="cannot be parsed"):
        columns(sealed(raw))


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_a_batch_that_inflates_beyond_the_bound_is_refused(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluvial.transport.inflate.MAX_BATCH_BYTES", 1 << 20)
    with pytest.raises(
        CorruptRecordBatchError, match=r"readings\[3\]: the record batch at offset 7 does not decompress"
    ):
        columns(build([Rec(0, 0, None, bytes(4 << 20))], base_offset=7, codec=codec))


def test_small_batches_that_inflate_far_are_read() -> None:
    value = bytes(3 << 20)
    raw = b"".join(build([Rec(0, 0, None, value)], base_offset=i, codec=ZSTD) for i in range(3))
    assert [row[3] == value for row in rows(columns(raw))] == [True] * 3
