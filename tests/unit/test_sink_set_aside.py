"""Bad records of result topics: wrapped with their reasons, and the sink stopped when nearly all are bad."""

import numpy as np
import pytest

from fluvial.errors import DeadLetterLimitError
from fluvial.records import RecordColumns, RowError
from fluvial.schemas.avro import DatumWriter, load_schema, read_datum
from fluvial.schemas.columns import spans_from_strings
from fluvial.services.sinking import SetAside

SCHEMA = load_schema("fluvial.DeadLetter")


def records(n: int) -> RecordColumns:
    # Every record: its value, then a header section with no headers.
    text = spans_from_strings([f"value-{i}\0" for i in range(n)])
    value = type(text)(text.buffer, text.start, text.length - 1)
    offsets = np.arange(100, 100 + n)
    return RecordColumns("fluvial.t", 3, offsets, offsets, value, value, value.start + value.length, 100 + n)


def errors(*rows: int) -> list[RowError]:
    return [RowError(row, "decode", "Truncated", "the bytes end inside a value") for row in rows]


def test_a_dead_letter_is_the_untouched_value_and_why() -> None:
    [letter] = SetAside(DatumWriter(SCHEMA, 7), ratio=0.5, run=10)(records(20), errors(4))
    assert letter.key == b"value-4"
    assert letter.value is not None
    told = read_datum(letter.value, SCHEMA)
    assert (told["payload"], told["topic"], told["partition"], told["offset"]) == (b"value-4", "fluvial.t", 3, 104)
    assert "cannot decode fluvial.t[3]@104: the bytes end inside a value" in told["error_message"]


def test_good_batches_make_no_dead_letters_and_break_a_run_of_bad_ones() -> None:
    set_aside = SetAside(DatumWriter(SCHEMA, 7), ratio=1.0, run=10)
    for _ in range(3):
        assert len(set_aside(records(6), errors(*range(6)))) == 6
        assert set_aside(records(6), []) == []


def test_a_long_run_of_bad_records_stops_the_sink() -> None:
    set_aside = SetAside(DatumWriter(SCHEMA, 7), ratio=1.0, run=10)
    set_aside(records(6), errors(*range(6)))
    with pytest.raises(DeadLetterLimitError, match=r"fluvial.t\[3\]: 12 bad records in a row"):
        set_aside(records(6), errors(*range(6)))
