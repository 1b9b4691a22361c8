"""Times as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from fluvial.instants import InstantError, instant

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
NOW_MS = NOW.replace(microsecond=123000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T12:00:00.5Z", datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01T12:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("now", NOW_MS),
        ("-1h", NOW_MS - timedelta(hours=1)),
        ("-90s", NOW_MS - timedelta(seconds=90)),
        ("-1.5d", NOW_MS - timedelta(hours=36)),
        ("+5m", NOW_MS + timedelta(minutes=5)),
        ("-2w", NOW_MS - timedelta(weeks=2)),
    ],
)
def test_a_time_is_understood(text: str, expected: datetime) -> None:
    assert instant(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "1h", "-1y", "2026-13-01", "-9999999999d"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InstantError, match="is no time; write 2026-03-01T12:00:00Z"):
        instant(text, NOW)


@pytest.mark.parametrize("text", ["1969-12-31", "-3000w"])
def test_a_time_before_the_epoch_is_refused(text: str) -> None:
    with pytest.raises(InstantError, match="outside of the years"):
        instant(text, NOW)
