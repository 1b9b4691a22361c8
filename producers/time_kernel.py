"""The loop that reads instants written as ISO 8601 or as epoch numbers, exactly: no value passes through a float."""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import numpy as np

from fluvial.compiling import njit
from fluvial.records import I64, U8

INSTANT, LOCAL, BAD, NULL = 0, 1, 2, 3
SECONDS, MILLIS, MICROS, NANOS, BY_SIZE = 0, 3, 6, 9, -1

# A bare number below these is taken for seconds, milliseconds, microseconds (up to the year 5138), if nobody says.
_LIMIT = 100_000_000_000


@njit(cache=True, nogil=True)
def _digits(buffer, at, end):
    """Return where a run of digits ends."""
    while at < end and 48 <= buffer[at] <= 57:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _number(buffer, at, end):
    value = np.int64(0)
    for i in range(at, end):
        value = value * 10 + (np.int64(buffer[i]) - 48)
    return value


@njit(cache=True, nogil=True)
def _fraction(buffer, at, end, places):
    """Return the first ``places`` decimals of a fraction as a number, and whether anything is left behind them."""
    value = np.int64(0)
    for i in range(places):
        value *= 10
        if at + i < end:
            value += np.int64(buffer[at + i]) - 48
    for i in range(at + places, end):
        if buffer[i] != 48:
            return value, True
    return value, False


@njit(cache=True, nogil=True)
def _epoch(buffer, at, end, power, per_second):
    """Return (value, status) of a number of seconds · 10^−power since the epoch, rounded down."""
    negative = buffer[at] == 45
    if buffer[at] == 45 or buffer[at] == 43:
        at += 1
    point = _digits(buffer, at, end)
    if point == at or point - at > 19 or (point < end and buffer[point] != 46):
        return 0, BAD
    stop = end
    if point < end:
        stop = _digits(buffer, point + 1, end)
        if stop != end:
            return 0, BAD
    whole = _number(buffer, at, point)
    if whole < 0:  # 19 digits can exceed 64 bits
        return 0, BAD
    if power == BY_SIZE:
        power = SECONDS
        limit = _LIMIT
        while power < NANOS and whole >= limit:
            power += 3
            limit *= 1000
    unit = 1
    for _ in range(power):
        unit *= 10
    second = whole // unit
    fraction, left = _fraction(buffer, min(point + 1, stop), stop, 9 - power)
    nano = (whole % unit) * (1_000_000_000 // unit) + fraction
    if second > 8_000_000_000_000:
        return 0, BAD
    if negative:
        nano += 1 if left else 0
        second = -second
        if nano > 0:
            second -= 1
            nano = 1_000_000_000 - nano
    return second * per_second + nano // (1_000_000_000 // per_second), INSTANT


@njit(cache=True, nogil=True)
def _days(year, month, day):
    """Days from 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, chrono-compatible date algorithms)."""
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@njit(cache=True, nogil=True)
def _month_length(year, month):
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@njit(cache=True, nogil=True)
def _pair(buffer, at, end):
    """Return a number of exactly two digits, −1 when there is none."""
    if at + 2 > end or _digits(buffer, at, at + 2) != at + 2:
        return -1
    return _number(buffer, at, at + 2)


@njit(cache=True, nogil=True)
def _zone(buffer, at, end):
    """Return (offset in seconds, status) of what stands behind a time of day."""
    while at < end and buffer[at] == 32:
        at += 1
    if at == end:
        return 0, LOCAL
    if end - at == 1 and (buffer[at] == 90 or buffer[at] == 122):
        return 0, INSTANT
    if end - at == 3 and buffer[at + 2] in (67, 84):  # UTC, GMT
        a, b = buffer[at], buffer[at + 1]
        return 0, INSTANT if (a == 85 and b == 84) or (a == 71 and b == 77) else BAD
    if buffer[at] != 43 and buffer[at] != 45:
        return 0, BAD
    sign = 1 if buffer[at] == 43 else -1
    hours = _pair(buffer, at + 1, end)
    at += 3
    if hours < 0 or hours > 18:
        return 0, BAD
    minutes = 0
    if at < end:
        if buffer[at] == 58:
            at += 1
        minutes = _pair(buffer, at, end)
        at += 2
    if at != end or minutes < 0 or minutes > 59:
        return 0, BAD
    return sign * (hours * 3600 + minutes * 60), INSTANT


@njit(cache=True, nogil=True)
def _iso(buffer, at, end, per_second):
    """Return (value, status) of ``YYYY-MM-DD`` with an optional time of day and zone."""
    if end - at < 10 or _digits(buffer, at, at + 4) != at + 4 or buffer[at + 4] != 45 or buffer[at + 7] != 45:
        return 0, BAD
    year, month, day = _number(buffer, at, at + 4), _pair(buffer, at + 5, end), _pair(buffer, at + 8, end)
    if month < 1 or month > 12 or day < 1 or day > _month_length(year, month):
        return 0, BAD
    second = _days(year, month, day) * 86400
    at += 10
    if at == end:
        return second * per_second, LOCAL
    if buffer[at] != 84 and buffer[at] != 116 and buffer[at] != 32:
        return 0, BAD
    hour, minute = _pair(buffer, at + 1, end), _pair(buffer, at + 4, end)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or buffer[at + 3] != 58:
        return 0, BAD
    second += hour * 3600 + minute * 60
    at += 6
    nano = 0
    if at < end and buffer[at] == 58:
        of_minute = _pair(buffer, at + 1, end)
        if of_minute < 0 or of_minute > 59:
            return 0, BAD
        second += of_minute
        at += 3
        if at < end and (buffer[at] == 46 or buffer[at] == 44):
            stop = _digits(buffer, at + 1, end)
            if stop == at + 1:
                return 0, BAD
            nano, _ = _fraction(buffer, at + 1, stop, 9)
            at = stop
    offset, status = _zone(buffer, at, end)
    return (second - offset) * per_second + nano // (1_000_000_000 // per_second), status


@njit(cache=True, nogil=True)
def parse_times(buffer: U8, start: I64, length: I64, power: int, per_second: int) -> tuple[I64, U8]:
    """Return each string's instant since the epoch in 1/``per_second`` seconds, rounded down, and its status.

    Status `LOCAL`: it has no zone, the value counts as if it were UTC. A bare number is an epoch in units of
    10^−``power`` seconds (`BY_SIZE`: told from its magnitude).
    """
    n = len(start)
    values, status = np.zeros(n, np.int64), np.full(n, NULL, np.uint8)
    for row in range(n):
        at, end = start[row], start[row] + length[row]
        while at < end and buffer[at] == 32:
            at += 1
        while end > at and buffer[end - 1] == 32:
            end -= 1
        if at >= end:
            continue
        first = at + 1 if buffer[at] == 45 or buffer[at] == 43 else at
        stop = _digits(buffer, first, end)
        if stop == end or buffer[stop] == 46:
            values[row], status[row] = _epoch(buffer, at, end, power, per_second)
        else:
            values[row], status[row] = _iso(buffer, at, end, per_second)
    return values, status
