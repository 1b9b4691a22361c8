"""A series over time in characters: the mean as dots, from min to max as a shade behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from fluvial.errors import FluvialError
from fluvial.records import F64, I64

DOT, BAND, NOTHING = "●", "░", " "
TICKS = 5
# The line is the first of these that a table has.
LINES = ("mean", "value", "count", "sum")
_TIME_FORMATS = ((3600, "%H:%M:%S"), (2 * 86_400, "%H:%M"), (300 * 86_400, "%d %b %H:%M"))


class PlotError(FluvialError):
    """There is nothing to draw."""


@dataclass(frozen=True, slots=True)
class Series:
    """Rows in time order: epoch ms, the line's value, the band around it (equal to the value where there is none)."""

    name: str
    time_ms: I64
    value: F64
    low: F64
    high: F64
    weight: F64


@dataclass(frozen=True, slots=True)
class Columns:
    """One value per column of characters; NaN where no row falls into it."""

    value: F64
    low: F64
    high: F64


def series_of(table: pa.Table, time: str, wanted: Sequence[str] = ()) -> Series:
    """Return what a table has to draw: the first wanted numeric column, or else the first of `LINES`.

    The band is ``min`` to ``max`` around ``mean``; rows are weighted by ``count``.

    Raises:
        PlotError: no such column, or no rows.
    """
    numeric = [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    candidates = [c for c in wanted if c in numeric] or [c for c in LINES if c in numeric]
    if not candidates:
        raise PlotError("no numeric column to draw", hint=f"name one with --columns: {', '.join(numeric) or 'none'}")
    if len(table) == 0:
        raise PlotError("no rows to draw", hint="ask for another range or key")
    name = candidates[0]
    order = np.argsort(_numbers(table, time), kind="stable")
    value = _numbers(table, name).astype(np.float64)[order]
    banded = name == "mean" and {"min", "max"} <= set(numeric)
    low = _numbers(table, "min").astype(np.float64)[order] if banded else value
    high = _numbers(table, "max").astype(np.float64)[order] if banded else value
    weighted = banded and "count" in numeric
    weight = _numbers(table, "count").astype(np.float64)[order] if weighted else np.ones(len(value))
    return Series(name, _numbers(table, time)[order].astype(np.int64), value, low, high, weight)


def binned(series: Series, begin_ms: int, end_ms: int, width: int) -> Columns:
    """Sort a series into ``width`` equal spans of ``[begin_ms, end_ms)``: weighted mean, least low, greatest high."""
    at = np.clip((series.time_ms - begin_ms) * width // max(end_ms - begin_ms, 1), 0, width - 1)
    weight = np.bincount(at, series.weight, width)
    with np.errstate(invalid="ignore"):
        value = np.bincount(at, series.value * series.weight, width) / weight
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    np.minimum.at(low, at, series.low)
    np.maximum.at(high, at, series.high)
    empty = weight == 0
    return Columns(*(np.where(empty, np.nan, a) for a in (value, low, high)))


def draw(series: Series, *, width: int, height: int, title: str) -> list[str]:
    """Return the lines of a plot: title, ``height`` rows with an axis at the left, and the time axis.

    ``width`` and ``height`` are the space for the whole width and for the rows.
    """
    bottom, top = _bounds(series)
    labels = _labels(bottom, top, height)
    margin = max(len(label) for label in labels) + 2
    inner = max(min(width - margin, _distinct_times(series)), 8)
    begin, end = int(series.time_ms[0]), int(series.time_ms[-1]) + 1
    columns = binned(series, begin, end, inner)
    rows = [list(NOTHING * inner) for _ in range(height)]
    for x in range(inner):
        if np.isnan(columns.value[x]):
            continue
        first, last = _row(columns.high[x], bottom, top, height), _row(columns.low[x], bottom, top, height)
        for y in range(first, last + 1):
            rows[y][x] = BAND
        rows[_row(columns.value[x], bottom, top, height)][x] = DOT
    banded = bool((series.low < series.high).any())
    legend = f"{DOT} {series.name}" + (f"   {BAND} min to max" if banded else "")
    lines = [f"{title}   {legend}"]
    lines += [f"{label:>{margin - 2}} ┤{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    lines.append(" " * (margin - 1) + "└" + "─" * inner)
    lines.append(" " * margin + _time_axis(begin, end, inner))
    return lines


def _bounds(series: Series) -> tuple[float, float]:
    bottom, top = float(np.min(series.low)), float(np.max(series.high))
    if bottom == top:
        pad = abs(bottom) * 0.05 or 1.0
        return bottom - pad, top + pad
    return bottom, top


def _row(value: float, bottom: float, top: float, height: int) -> int:
    return int(np.clip(round((top - value) / (top - bottom) * (height - 1)), 0, height - 1))


def _labels(bottom: float, top: float, height: int) -> list[str]:
    ticked = {round(i * (height - 1) / (TICKS - 1)) for i in range(TICKS)}
    values = [top - (top - bottom) * y / (height - 1) for y in range(height)]
    digits = max(0, 2 - int(np.floor(np.log10(top - bottom))))
    return [f"{v:,.{digits}f}" if y in ticked else "" for y, v in enumerate(values)]


def _time_axis(begin: int, end: int, width: int) -> str:
    span = (end - begin) / 1000
    form = next((f for limit, f in _TIME_FORMATS if span <= limit), "%d %b %Y")
    first, last = (datetime.fromtimestamp(t / 1000, UTC) for t in (begin, end - 1))
    left, right = first.strftime("%Y-%m-%d %H:%M"), last.strftime(form)
    middle = datetime.fromtimestamp((begin + end) / 2000, UTC).strftime(form)
    line = left.ljust(width)
    if width >= len(left) + len(right) + 2:
        line = line[: width - len(right)] + right
    at = (width - len(middle)) // 2
    if at > len(left) + 1 and at + len(middle) < width - len(right) - 1:
        line = line[:at] + middle + line[at + len(middle) :]
    return line.rstrip() + " UTC"


def _distinct_times(series: Series) -> int:
    """Return how many columns the data fill at their own step, so that dense data look dense and sparse data touch."""
    times = np.unique(series.time_ms)
    if len(times) < 2:
        return 1
    step = int(np.min(np.diff(times)))
    return int((times[-1] - times[0]) // step) + 1


def _numbers(table: pa.Table, name: str) -> I64 | F64:
    column = table.column(name).combine_chunks()
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    found: I64 | F64 = column.fill_null(0).to_numpy(zero_copy_only=False)
    return found
