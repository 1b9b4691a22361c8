"""Cells as the driver's own types serialise them."""

import datetime
import struct

import numpy as np
import pytest
from cassandra import cqltypes
from hypothesis import given
from hypothesis import strategies as st

from fluvial.errors import SinkError
from fluvial.records import Column, Spans
from fluvial.schemas.columns import double_lists, doubles, longs, spans_from_strings, string_lists
from fluvial.sinks.columns import cells

VERSION = 5
TEXT_LIST = cqltypes.ListType.apply_parameters([cqltypes.UTF8Type])
DOUBLE_LIST = cqltypes.ListType.apply_parameters([cqltypes.DoubleType])
EPOCH = datetime.datetime(1970, 1, 1)
floats = st.floats(allow_nan=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))


def found(column: Column, cql_type: str) -> list[bytes]:
    spans: Spans = cells(column, cql_type)
    values = [spans.bytes_at(i) for i in range(len(spans))]
    assert None not in values
    return values  # type: ignore[return-value]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_bigints_are_the_drivers(values: list[int]) -> None:
    assert found(longs(values), "bigint") == [cqltypes.LongType.serialize(v, VERSION) for v in values]


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_ints_are_the_drivers(values: list[int]) -> None:
    assert found(longs(values), "int") == [cqltypes.Int32Type.serialize(v, VERSION) for v in values]


@given(st.lists(st.integers(-(10**13), 10**13)))
def test_timestamps_are_the_drivers(values: list[int]) -> None:
    times = [EPOCH + datetime.timedelta(milliseconds=v) for v in values]
    assert found(longs(values), "timestamp") == [cqltypes.DateType.serialize(t, VERSION) for t in times]


@given(st.lists(st.dates()))
def test_dates_are_the_drivers(values: list[datetime.date]) -> None:
    days = [(v - EPOCH.date()).days for v in values]
    assert found(longs(days), "date") == [cqltypes.SimpleDateType.serialize(v, VERSION) for v in values]


@given(st.lists(st.booleans()))
def test_booleans_are_the_drivers(values: list[bool]) -> None:
    assert found(longs(values), "boolean") == [cqltypes.BooleanType.serialize(v, VERSION) for v in values]


@given(st.lists(floats))
def test_doubles_are_the_drivers_bit_for_bit(values: list[float]) -> None:
    assert found(doubles(values), "double") == [cqltypes.DoubleType.serialize(v, VERSION) for v in values]


@given(st.lists(st.floats(width=32)))
def test_floats_are_the_drivers(values: list[float]) -> None:
    assert found(doubles(values), "float") == [cqltypes.FloatType.serialize(v, VERSION) for v in values]


@given(st.lists(texts))
def test_texts_are_the_drivers(values: list[str]) -> None:
    assert found(spans_from_strings(values), "text") == [cqltypes.UTF8Type.serialize(v, VERSION) for v in values]


@given(st.lists(st.lists(texts, max_size=5)))
def test_lists_of_texts_are_the_drivers(values: list[list[str]]) -> None:
    expected = [TEXT_LIST.serialize(v, VERSION) for v in values]
    assert found(string_lists(values), "frozen<list<text>>") == expected


@given(st.lists(st.lists(floats, max_size=5)))
def test_lists_of_doubles_are_the_drivers(values: list[list[float]]) -> None:
    expected = [DOUBLE_LIST.serialize(v, VERSION) for v in values]
    assert found(double_lists(values), "frozen<list<double>>") == expected


@pytest.mark.parametrize(
    ("column", "cql_type"),
    [
        (longs([1, 2], np.array([True, False])), "bigint"),
        (longs([1, 2], np.array([True, False])), "date"),
        (doubles([1, 2], np.array([True, False])), "double"),
        (spans_from_strings(["a", None]), "text"),
    ],
)
def test_a_null_is_a_cell_that_is_not_set_and_never_a_tombstone(column: Column, cql_type: str) -> None:
    assert cells(column, cql_type).length[1] == -2


def test_a_long_that_does_not_fit_an_int_is_refused_with_its_value() -> None:
    with pytest.raises(SinkError, match="2147483648 does not fit into CQL's int"):
        cells(longs([0, 2**31]), "int")


def test_a_column_of_another_kind_is_refused() -> None:
    with pytest.raises(SinkError, match="a column of Doubles cannot be written as text"):
        cells(doubles([1.0]), "text")


def test_a_double_keeps_its_bytes() -> None:
    assert found(doubles([-0.0]), "double") == [struct.pack(">d", -0.0)]
