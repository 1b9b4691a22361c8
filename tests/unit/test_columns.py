"""Columns from and to Python and Arrow."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from fluvial.errors import SchemaError
from fluvial.schemas.columns import (
    column_from_arrow,
    column_to_arrow,
    concat_spans,
    doubles,
    spans_from_strings,
    spans_to_arrow,
    string_lists,
)
from fluvial.schemas.layout import layout_of
from fluvial.schemas.shapes import shape_of
from support.batches import value_at

FIELDS = {
    "text": ["null", "string"],
    "number": ["null", "double"],
    "time": {"type": "long", "logicalType": "timestamp-millis"},
    "texts": {"type": "array", "items": "string"},
    "numbers": {"type": "array", "items": "double"},
}
SPECS = {
    c.name: c
    for c in layout_of(
        shape_of({"type": "record", "name": "E", "fields": [{"name": n, "type": t} for n, t in FIELDS.items()]})
    ).columns
}


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["é", None, "", "abc"]),
        pa.array(["x", "é", None, "", "abc"]).slice(1),
        pa.chunked_array([["é", None], ["", "abc"]]),
        pa.array(["é", None, "", "abc"], pa.large_string()),
        pa.array(["é", None, "", "abc"]).dictionary_encode(),
    ],
)
def test_strings_of_every_arrow_form_become_spans(array: pa.Array) -> None:
    spans = column_from_arrow(array, SPECS["text"])
    assert [value_at(spans, i) for i in range(4)] == ["é".encode(), None, b"", b"abc"]
    assert column_to_arrow(spans).to_pylist() == ["é", None, "", "abc"]


def test_numbers_keep_their_nulls() -> None:
    column = column_from_arrow(pa.array([1, None, 3]), SPECS["number"])
    assert [value_at(column, i) for i in range(3)] == [1.0, None, 3.0]
    assert column_to_arrow(column).to_pylist() == [1.0, None, 3.0]


def test_times_become_epoch_milliseconds() -> None:
    at = dt.datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=dt.UTC)
    column = column_from_arrow(pa.array([at], pa.timestamp("us", "UTC")), SPECS["time"])
    assert value_at(column, 0) == 1_714_564_800_250


def test_lists_come_and_go() -> None:
    texts = column_from_arrow(pa.array([["a"], None, [], ["b", "c"]]), SPECS["texts"])
    assert column_to_arrow(texts).to_pylist() == [["a"], [], [], ["b", "c"]]
    numbers = column_from_arrow(pa.array([[9.0], [1.5], []]).slice(1), SPECS["numbers"])
    assert column_to_arrow(numbers).to_pylist() == [[1.5], []]


def test_a_column_that_does_not_fit_names_its_field() -> None:
    with pytest.raises(SchemaError, match="field number"):
        column_from_arrow(pa.array(["x"]), SPECS["number"])


def test_spans_in_any_order_are_gathered() -> None:
    spans = spans_from_strings(["aa", None, "b", ""]).take(np.array([2, 1, 0, 3, 0]))
    assert spans_to_arrow(spans).to_pylist() == ["b", None, "aa", "", "aa"]


def test_joined_spans_share_their_common_buffer() -> None:
    a, b = spans_from_strings(["x", "y"]), spans_from_strings(["z", None])
    joined = concat_spans([a, b, a.take(np.array([1]))])
    assert [joined.bytes_at(i) for i in range(5)] == [b"x", b"y", b"z", None, b"y"]
    assert len(joined.buffer) == 3
    assert len(concat_spans([])) == 0


def test_masked_values_are_zero() -> None:
    column = doubles([1.0, float("nan")], np.array([True, False]))
    assert column.values.tolist() == [1.0, 0.0]
    assert string_lists([]).offsets.tolist() == [0]
