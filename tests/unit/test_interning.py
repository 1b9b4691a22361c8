"""Interning and hashing of byte strings: equal to a dict and to the reference, whatever the batches and restarts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.oracle.sketches import xxh64
from fluvial.records import Spans
from fluvial.schemas.columns import spans_from_strings
from fluvial.stream_apps.hashing import hash_spans
from fluvial.stream_apps.interning import Interner, joined

NAMES = st.binary(max_size=40) | st.sampled_from([b"", b"a", b"ab", b"abcdefgh", b"abcdefghi"])


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=20), max_size=8), st.booleans())
def test_ids_are_those_of_a_dict_in_order_of_first_appearance(
    batches: list[list[tuple[bytes, bytes]]], restart: bool
) -> None:
    interner, expected = Interner(2), dict[tuple[bytes, bytes], int]()
    for batch in batches:
        ids = interner.ids([spans_from_strings([a for a, _ in batch]), spans_from_strings([b for _, b in batch])])
        assert ids.tolist() == [expected.setdefault(pair, len(expected)) for pair in batch]
        if restart:
            state = interner.state()
            interner = Interner(2)
            interner.restore(state)
    every = np.arange(len(expected))
    names = [
        (interner.column(0, every).bytes_at(i), interner.column(1, every).bytes_at(i)) for i in range(len(expected))
    ]
    assert names == list(expected)


def test_many_ids_survive_every_growth() -> None:
    names = [f"sensor-{i:06d}" for i in range(20_000)]
    interner = Interner()
    assert interner.ids([spans_from_strings(names)]).tolist() == list(range(20_000))
    assert interner.ids([spans_from_strings(names[::-1])]).tolist() == list(range(19_999, -1, -1))


def test_a_null_has_no_id() -> None:
    assert Interner().ids([spans_from_strings(["a", None, "a"])]).tolist() == [0, -1, 0]


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=10))
def test_hashes_are_xxh64(strings: list[bytes]) -> None:
    assert hash_spans(spans_from_strings(strings)).tolist() == [xxh64(s) for s in strings]


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=10))
def test_joined_keys_are_the_fields_with_a_bar_between(pairs: list[tuple[bytes, bytes]]) -> None:
    out: Spans = joined([spans_from_strings([a for a, _ in pairs]), spans_from_strings([b for _, b in pairs])])
    assert [out.bytes_at(i) for i in range(len(pairs))] == [a + b"|" + b for a, b in pairs]
