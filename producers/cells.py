"""Arrow arrays as they come out of files → codec columns of a field, bad cells marked row by row."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fluvial.producers.fields import Field
from fluvial.producers.rejections import Faults
from fluvial.producers.times import TimeRules, times_from_arrow, times_from_text
from fluvial.records import I64, Column, DoubleLists, Doubles, Longs, Mask, Spans, StringLists
from fluvial.schemas.columns import concat_spans, spans_from_strings

WHOLE = r"^[+-]?\d{1,19}$"
NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
DEFAULT_NULLS = ("", "NA", "N/A", "null", "NULL")


def column_of(
    array: pa.Array, field: Field, rules: TimeRules, nulls: Sequence[str], faults: Faults, name: str
) -> Column:
    """Return an array as the column of a field; nulls that the field cannot take are marked.

    ``nulls`` are the spellings of null among texts that should be numbers or times; ``name`` is the source's.
    """
    where = field.name if name == field.name else f"{field.name} (column {name})"
    array = _plain(array)
    match field.kind:
        case "text":
            return _filled_texts(_texts(array, field, faults, where), field, faults, where)
        case "number":
            numbers = numbers_of(array, nulls, faults, where)
            filled, valid = _filled(numbers.values, numbers.valid, field, faults, where)
            return Doubles(filled, valid)
        case "integer":
            whole = _integers(array, field, nulls, faults, where)
            return Longs(*_filled(whole.values, whole.valid, field, faults, where))
        case "time":
            times = _times(array, field, rules, nulls, faults, where)
            return Longs(*_filled(times.values, times.valid, field, faults, where))
        case "texts":
            return _text_lists(array, faults, where)
        case _:
            return _number_lists(array, nulls, faults, where)


def numbers_of(array: pa.Array, nulls: Sequence[str], faults: Faults, where: str) -> Doubles:
    """Return an array as doubles; what is not a finite number is marked, null is not valid."""
    array = _plain(array)
    if pa.types.is_null(array.type):
        return Doubles(np.zeros(len(array)), np.zeros(len(array), np.bool_))
    given = _valid(array)
    if _is_text(array.type):
        array, given = _numeric_texts(_utf8(array, faults, where), nulls, pa.float64())
    elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        faults.mark(given, f"{where}: {array.type} is not a number")
        return Doubles(np.zeros(len(array)), np.zeros(len(array), np.bool_))
    else:
        array = array.cast(pa.float64(), safe=False)
    valid = _valid(array)
    values = np.asarray(array.fill_null(0.0))
    finite = np.isfinite(values)
    faults.mark((given & ~valid) | (valid & ~finite), f"{where}: not a finite number")
    return Doubles(np.where(finite, values, 0.0), valid)


def _texts(array: pa.Array, field: Field, faults: Faults, where: str) -> Spans:
    texts = _utf8(array, faults, where)
    if field.symbols:
        unknown = pc.and_not(pc.is_valid(texts), pc.is_in(texts, pa.array(field.symbols, pa.large_string())))
        faults.mark(_mask(unknown), f"{where}: not one of {', '.join(field.symbols)}")
    return spans_from_strings(texts)


def _integers(array: pa.Array, field: Field, nulls: Sequence[str], faults: Faults, where: str) -> Longs:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        valid, values = _valid(array), np.asarray(array.cast(pa.int64()).fill_null(0))
    elif _is_text(array.type):
        texts = _utf8(array, faults, where)
        if field.high == 1:
            lower = pc.utf8_lower(texts)
            texts = pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", texts))
        texts, given = _numeric_texts(texts.cast(pa.large_string()), nulls, pa.int64())
        valid, values = _valid(texts), np.asarray(texts.fill_null(0))
        faults.mark(given & ~valid, f"{where}: not a whole number of 64 bits")
    else:
        numbers = numbers_of(array, nulls, faults, where)
        whole = (np.abs(numbers.values) < 2.0**63) & (numbers.values == np.floor(numbers.values))
        faults.mark(numbers.valid & ~whole, f"{where}: not a whole number of 64 bits")
        valid, values = numbers.valid, np.where(whole, numbers.values, 0.0).astype(np.int64)
    beyond = valid & ((values < field.low) | (values > field.high))
    faults.mark(beyond, f"{where}: not between {field.low} and {field.high}")
    return Longs(values, valid)


def _times(array: pa.Array, field: Field, rules: TimeRules, nulls: Sequence[str], faults: Faults, where: str) -> Longs:
    if pa.types.is_null(array.type):
        return Longs(np.zeros(len(array), np.int64), np.zeros(len(array), np.bool_))
    if _is_text(array.type):
        texts = _utf8(array, faults, where)
        is_null = pc.is_in(texts, pa.array([s for s in nulls if s], pa.large_string()))
        if pc.any(is_null).as_py():
            texts = pc.if_else(is_null, pa.scalar(None, pa.large_string()), texts)
        return times_from_text(spans_from_strings(texts), field.per_second, rules, faults, where)
    try:
        return times_from_arrow(array, field.per_second, rules, faults, where)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        valid = _valid(array)
        faults.mark(valid, f"{where}: {array.type} is not a time")
        return Longs(np.zeros(len(array), np.int64), valid)


def _text_lists(array: pa.Array, faults: Faults, where: str) -> StringLists:
    """Lists stay lists, anything else becomes the list of that one item, null the empty list."""
    if not _is_list(array.type):
        one = spans_from_strings(_utf8(array, faults, where))
        kept = one.length >= 0
        return StringLists(np.concatenate(([0], np.cumsum(kept))).astype(np.int64), one.take(kept))
    offsets, items = _list_parts(array)
    item_faults = Faults(len(items))
    texts = spans_from_strings(_utf8(_plain(items), item_faults, where))
    item_faults.mark(texts.length < 0, f"{where}: null in a list")
    _mark_lists(offsets, item_faults, faults)
    return StringLists(offsets, texts)


def _number_lists(array: pa.Array, nulls: Sequence[str], faults: Faults, where: str) -> DoubleLists:
    if not _is_list(array.type):
        one = numbers_of(array, nulls, faults, where)
        return DoubleLists(np.concatenate(([0], np.cumsum(one.valid))).astype(np.int64), one.values[one.valid])
    offsets, items = _list_parts(array)
    item_faults = Faults(len(items))
    numbers = numbers_of(items, nulls, item_faults, where)
    item_faults.mark(~numbers.valid, f"{where}: null in a list")
    _mark_lists(offsets, item_faults, faults)
    return DoubleLists(offsets, numbers.values)


def _mark_lists(offsets: I64, items: Faults, faults: Faults) -> None:
    for item in items.bad_rows().tolist():
        mask = np.zeros(len(offsets) - 1, np.bool_)
        mask[np.searchsorted(offsets, item, side="right") - 1] = True
        faults.mark(mask, items.reason(item))


def _numeric_texts(texts: pa.Array, nulls: Sequence[str], kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Return texts as numbers, null where they are none, and which of them are not spellings of null.

    The common case is one cast of clean texts; every text means the same in both ways of reading.
    """
    null = pa.scalar(None, texts.type)
    spelt = ["", *(s for s in nulls if re.match(NUMBER, s))]
    texts = pc.if_else(pc.is_in(texts, pa.array(spelt, texts.type)), null, texts)
    hexadecimal = pa.types.is_integer(kind) and pc.any(pc.match_substring(texts, "x", ignore_case=True)).as_py()
    if not hexadecimal:
        try:
            return texts.cast(kind), _valid(texts)
        except pa.ArrowInvalid:
            pass
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.is_in(texts, pa.array(["", *nulls], texts.type)), null, texts)
    given = _valid(texts)
    texts = pc.if_else(pc.match_substring_regex(texts, NUMBER if pa.types.is_floating(kind) else WHOLE), texts, null)
    try:
        return texts.cast(kind), given
    except pa.ArrowInvalid:
        whole = [None if t is None or not -(1 << 63) <= int(t) < 1 << 63 else int(t) for t in texts.to_pylist()]
        return pa.array(whole, pa.int64()), given


def _utf8(array: pa.Array, faults: Faults, where: str) -> pa.Array:
    """Return an array as large strings; bytes that are not UTF-8 are marked and null."""
    if pa.types.is_large_string(array.type):
        return array
    if not (_is_list(array.type) or pa.types.is_struct(array.type)):
        try:
            return array.cast(pa.large_string())
        except pa.ArrowInvalid:
            pass
    out: list[str | None] = []
    bad = np.zeros(len(array), np.bool_)
    for row, value in enumerate(array.to_pylist()):
        try:
            out.append(
                value.decode()
                if isinstance(value, bytes)
                else None
                if value is None
                else json.dumps(value, default=str)
            )
        except UnicodeDecodeError:
            bad[row] = True
            out.append(None)
    faults.mark(bad, f"{where}: not UTF-8")
    return pa.array(out, pa.large_string())


def _filled(values: Any, valid: Mask, field: Field, faults: Faults, where: str) -> tuple[Any, Mask]:
    """Put the field's default where it cannot be null; mark the rows when it has none."""
    if field.nullable or valid.all():
        return values, valid
    if not field.has_default:
        faults.mark(~valid, f"{where}: missing")
        return values, valid
    return np.where(valid, values, field.default), np.ones(len(valid), np.bool_)


def _filled_texts(texts: Spans, field: Field, faults: Faults, where: str) -> Spans:
    null = texts.length < 0
    if field.nullable or not null.any():
        return texts
    if not field.has_default:
        faults.mark(null, f"{where}: missing")
        return texts
    both = concat_spans([texts, spans_from_strings([str(field.default)])])
    return both.take(np.where(null, len(texts), np.arange(len(texts))))


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_text(kind: pa.DataType) -> bool:
    return any(
        f(kind) for f in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _list_parts(array: pa.Array) -> tuple[I64, pa.Array]:
    lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), array.flatten()


def _valid(array: pa.Array) -> Mask:
    return _mask(array.is_valid())


def _mask(array: pa.Array) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
