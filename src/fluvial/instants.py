"""Instants as people write them: RFC 3339, a date, ``now``, or relative like ``-1h``."""

import re
from datetime import UTC, datetime, timedelta

from fluvial.errors import FluvialError

_RELATIVE = re.compile(r"([+-])(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = datetime(9999, 1, 1, tzinfo=UTC)


class InstantError(FluvialError):
    """A text is no instant."""


def instant(text: str, now: datetime) -> datetime:
    """Return the instant that a text means, to the millisecond; without a zone it is UTC, a date is its midnight.

    Raises:
        InstantError: the text cannot be read, or lies outside of 1970–9999.
    """
    given = text.strip()
    found = _RELATIVE.fullmatch(given)
    try:
        if given == "now":
            moment = now
        elif found:
            sign, amount, unit = found.groups()
            moment = now + (1 if sign == "+" else -1) * float(amount) * _UNITS[unit]
        else:
            moment = datetime.fromisoformat(given)
    except (ValueError, OverflowError):
        raise InstantError(
            f"{text!r} is no time", hint="write 2026-03-01T12:00:00Z, 2026-03-01, now, or relative: -1h, -30m, -7d"
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if not _EPOCH <= moment < _FAR:
        raise InstantError(f"{text!r} lies outside of the years 1970 to 9998", hint="check its digits")
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def milliseconds(text: str) -> int:
    """Return a duration like ``90s``, ``5m``, ``1h`` or ``7d`` in milliseconds.

    Raises:
        InstantError: the text is none.
    """
    found = _RELATIVE.fullmatch(f"+{text.strip()}")
    if found is None:
        raise InstantError(f"{text!r} is no duration", hint="write 500ms, 90s, 5m, 1h or 7d")
    return round(float(found.group(2)) * _UNITS[found.group(3)].total_seconds() * 1000)
