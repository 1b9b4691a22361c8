"""Columns of times in any usual form → instants since the epoch, rounded down to the field's resolution."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from fluvial.producers import time_kernel as k
from fluvial.producers.rejections import Faults
from fluvial.records import F64, I64, Longs, Mask, Spans
from fluvial.schemas.columns import sealed, spans_from_strings

EpochUnit = Literal["auto", "s", "ms", "us", "ns"]
POWERS: dict[str, int] = {"auto": k.BY_SIZE, "s": k.SECONDS, "ms": k.MILLIS, "us": k.MICROS, "ns": k.NANOS}

# Offsets from UTC have changed at whole quarter hours of local time since standard time exists.
_QUARTER = 900
_EPOCH = datetime(1970, 1, 1)
_SECONDS_LOW, _SECONDS_HIGH = -62_135_510_400, 253_402_214_400


@dataclass(frozen=True, slots=True)
class TimeRules:
    """How times are to be understood: the zone of those without one, and the unit of bare numbers."""

    zone: ZoneInfo | None = None
    epoch_unit: EpochUnit = "auto"


NO_ZONE = "a time without a zone (add one, or say --timezone)"


def times_from_text(texts: Spans, per_second: int, rules: TimeRules, faults: Faults, where: str) -> Longs:
    """Return ISO 8601 times and epoch numbers as instants in 1/``per_second`` s; null and blank ones are not valid."""
    values, status = k.parse_times(
        sealed(texts.buffer), texts.start, texts.length, POWERS[rules.epoch_unit], per_second
    )
    faults.mark(status == k.BAD, f"{where}: not an ISO 8601 time or an epoch number")
    local = status == k.LOCAL
    if local.any():
        values = _located(values, local, per_second, rules, faults, where)
    return Longs(values, status <= k.LOCAL)


def times_from_arrow(array: pa.Array, per_second: int, rules: TimeRules, faults: Faults, where: str) -> Longs:
    """Return Arrow timestamps, dates, integers or floats as instants; see `times_from_text`.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: the array is of another type.
    """
    valid: Mask = array.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    kind = array.type
    if pa.types.is_date(kind):
        array = array.cast(pa.timestamp("ms"))
        kind = array.type
    if pa.types.is_timestamp(kind):
        units: I64 = np.asarray(array.cast(pa.int64()).fill_null(0))
        values = _rescaled(units, POWERS[kind.unit], per_second, valid, faults, where)
        if kind.tz is None and len(values):
            values = _located(values, valid, per_second, rules, faults, where)
        return Longs(np.where(valid, values, 0), valid)
    if pa.types.is_integer(kind):
        whole: I64 = np.asarray(array.cast(pa.int64()).fill_null(0))
        return Longs(_from_integers(whole, per_second, rules, valid, faults, where), valid)
    numbers = np.asarray(array.cast(pa.float64()).fill_null(0.0))
    wild = valid & ~(np.abs(numbers) < 9e18)
    faults.mark(wild, f"{where}: not an ISO 8601 time or an epoch number")
    power = _powers(np.abs(np.where(wild, 0.0, numbers)), rules)
    # A double of this size holds microseconds, not more: the nearest one is what was written.
    micros = np.rint(np.where(wild, 0.0, numbers) * 10.0 ** (6 - power)).astype(np.int64)
    return Longs(np.where(valid, micros // (1_000_000 // per_second), 0), valid)


def _from_integers(whole: I64, per_second: int, rules: TimeRules, valid: Mask, faults: Faults, where: str) -> I64:
    power = _powers(np.abs(whole), rules)
    out = np.zeros(len(whole), np.int64)
    for p in np.unique(power):
        rows = power == p
        out[rows] = _rescaled(whole, int(p), per_second, valid & rows, faults, where)[rows]
    return out


def _rescaled(units: I64, power: int, per_second: int, rows: Mask, faults: Faults, where: str) -> I64:
    """Return units of 10^−power seconds in 1/per_second seconds, rounded down."""
    unit = 10**power
    if unit >= per_second:
        whole: I64 = units // (unit // per_second)
        return whole
    factor = per_second // unit
    beyond = rows & (np.abs(units) > (1 << 62) // factor)
    faults.mark(beyond, f"{where}: beyond 64 bits")
    scaled: I64 = np.where(beyond, 0, units) * factor
    return scaled


def _powers(size: F64 | I64, rules: TimeRules) -> I64:
    if rules.epoch_unit != "auto":
        return np.full(len(size), POWERS[rules.epoch_unit])
    return np.searchsorted(np.array([1e11, 1e14, 1e17]), size, side="right") * 3


def _located(values: I64, local: Mask, per_second: int, rules: TimeRules, faults: Faults, where: str) -> I64:
    """Return the values with the local ones moved to UTC."""
    if rules.zone is None:
        faults.mark(local, f"{where}: {NO_ZONE}")
        return values
    seconds = values // per_second
    odd = local & ((seconds < _SECONDS_LOW) | (seconds > _SECONDS_HIGH))
    faults.mark(odd, f"{where}: a local time outside of the years 1 to 9999")
    rows = np.flatnonzero(local & ~odd)
    quarter, index = np.unique(seconds[rows] // _QUARTER, return_inverse=True)
    offsets = np.array([_offsets(int(q), rules.zone) for q in quarter], np.int64).reshape(-1, 2)
    earlier, later = offsets[index, 0], offsets[index, 1]
    for wrong, what in ((earlier > later, "occurs twice"), (earlier < later, "does not exist")):
        mask = np.zeros(len(values), np.bool_)
        mask[rows[wrong]] = True
        faults.mark(mask, f"{where}: a local time that {what} in {rules.zone.key} (give the zone in the value)")
    out = values.copy()
    out[rows] -= earlier * per_second
    return out


def _offsets(quarter: int, zone: ZoneInfo) -> tuple[int, int]:
    """Return the offsets (s) before and after a change that covers this local time; they are equal where none does."""
    local = _EPOCH + timedelta(seconds=quarter * _QUARTER)
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    return int(first.total_seconds()), int(second.total_seconds())


def instant_ms(text: str) -> int | None:
    """Return one instant with a zone (or epoch number) in epoch ms, None when the text is none."""
    faults = Faults(1)
    found = times_from_text(spans_from_strings([text]), 1_000, TimeRules(), faults, "")
    return None if faults.bad_rows().size or not found.valid[0] else int(found.values[0])


def iso(value: int, per_second: int) -> str:
    """Return an instant as ISO 8601 in UTC, for people."""
    try:
        at = datetime.fromtimestamp(value // per_second, UTC) + timedelta(
            microseconds=value % per_second * (1_000_000 // per_second)
        )
    except (ValueError, OverflowError, OSError):
        return str(value)
    return at.isoformat(timespec="milliseconds" if per_second == 1_000 else "microseconds").replace("+00:00", "Z")
