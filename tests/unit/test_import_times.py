"""Times in any usual form: exact, rounded down, and never without a zone."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluvial.producers.rejections import Faults
from fluvial.producers.times import EpochUnit, TimeRules, instant_ms, iso, times_from_arrow, times_from_text
from fluvial.schemas.columns import spans_from_strings

BERLIN = TimeRules(ZoneInfo("Europe/Berlin"))


def parsed(texts: list[str | None], rules: TimeRules | None = None) -> tuple[list[int | None], list[str]]:
    """Return each text's epoch ms (None where null or bad) and the reasons of the bad ones."""
    faults = Faults(len(texts))
    found = times_from_text(spans_from_strings(texts), 1_000, rules or TimeRules(), faults, "t")
    good = found.valid & faults.good
    times = [int(v) if ok else None for v, ok in zip(found.values, good, strict=True)]
    return times, [faults.reason(int(i)) for i in faults.bad_rows()]


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-18 * 60, 18 * 60),
    st.sampled_from(["T", " ", "t"]),
)
def test_what_python_writes_as_iso_8601_is_read_rounded_down(local: datetime, minutes: int, separator: str) -> None:
    at = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    exact = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert parsed([at.isoformat(separator)]) == ([exact], [])


@given(st.integers(-(10**10), 10**10), st.integers(0, 999_999_999))
def test_epoch_seconds_with_decimals_are_exact(second: int, nano: int) -> None:
    text = f"{second}.{nano:09d}" if second >= 0 else f"-{-second}.{nano:09d}"
    total = second * 10**9 + (nano if second >= 0 else -nano)
    assert parsed([text], TimeRules(epoch_unit="s")) == ([total // 10**6], [])


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1577797200", 1577797200000),
        ("1577797200123", 1577797200123),
        ("1577797200123999", 1577797200123),
        ("1577797200123999999", 1577797200123),
        ("-0.0001", -1),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("2020-02-29T00:00:00,5+01", 1582930800500),
        ("2020-02-29 00:00 UTC", 1582934400000),
        ("2020-02-29T00:00:00-0330", 1582947000000),
    ],
)
def test_golden_times(text: str, ms: int) -> None:
    assert parsed([text]) == ([ms], [])


@pytest.mark.parametrize(
    "text",
    [
        "2021-02-29T00:00:00Z",
        "2020-13-01T00:00:00Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T00:60:00Z",
        "2020-01-01T00:00:60Z",
        "2020-01-01T00:00:00+25:00",
        "2020-01-01T00:00:00.Z",
        "2020-1-1",
        "99999999999999999999",
        "1e9",
        "soon",
        "-",
    ],
)
def test_what_is_no_time_is_rejected(text: str) -> None:
    assert parsed([text]) == ([None], ["t: not an ISO 8601 time or an epoch number"])


@given(st.text(max_size=40))
@example("٣٠")
def test_any_text_is_a_time_or_rejected_or_blank(text: str) -> None:
    times, reasons = parsed([text, None])
    assert times[1] is None
    assert len(reasons) == (0 if times[0] is not None or not text.strip(" ") else 1)


def test_a_time_without_a_zone_is_rejected_unless_one_is_given() -> None:
    assert parsed(["2020-07-01T12:00:00"])[1] == ["t: a time without a zone (add one, or say --timezone)"]
    assert parsed(["2020-07-01T12:00:00", "2020-07-01"], BERLIN)[0] == [1593597600000, 1593554400000]
    assert parsed(["2020-07-01T12:00:00Z"], BERLIN)[0] == [1593604800000]


def test_local_times_that_occur_twice_or_never_are_rejected() -> None:
    times, reasons = parsed(["2024-10-27T02:30:00", "2024-03-31T02:30:00", "2024-03-31T03:00:00"], BERLIN)
    assert times == [None, None, 1711846800000]
    assert "occurs twice in Europe/Berlin" in reasons[0]
    assert "does not exist in Europe/Berlin" in reasons[1]


@given(st.datetimes(datetime(1950, 1, 1), datetime(2037, 1, 1)), st.sampled_from(["Europe/Berlin", "Asia/Kathmandu"]))
def test_local_times_agree_with_zoneinfo(local: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    early, late = (local.replace(tzinfo=zone, fold=f) for f in (0, 1))
    times, _ = parsed([local.isoformat()], TimeRules(zone))
    if early.utcoffset() == late.utcoffset():
        assert times == [(early - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)]
    else:
        assert times == [None]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1), st.sampled_from(["auto", "s", "ms", "us", "ns"]))
def test_numbers_and_their_texts_mean_the_same(numbers: list[int], unit: EpochUnit) -> None:
    rules, faults = TimeRules(epoch_unit=unit), Faults(len(numbers))
    found = times_from_arrow(pa.array(numbers), 1_000, rules, faults, "t")
    texts, _ = parsed([str(n) for n in numbers], rules)
    for value, text, good in zip(found.values.tolist(), texts, faults.good.tolist(), strict=True):
        if good and text is not None:
            assert value == text


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_timestamps_are_rounded_down_and_need_a_zone(unit: str) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = pa.array([-1, 0, 1_600_000_000 * per + per // 3, None], pa.timestamp(unit, "Asia/Tokyo"))
    faults = Faults(4)
    found = times_from_arrow(stamps, 1_000, TimeRules(), faults, "t")
    expected = [-1000 // per if per > 1 else -1000, 0, 1_600_000_000_000 + (per // 3) * 1000 // per, 0]
    assert found.values.tolist() == expected
    assert found.valid.tolist() == [True, True, True, False]
    assert not len(faults.bad_rows())
    naive = Faults(4)
    times_from_arrow(stamps.cast(pa.int64()).cast(pa.timestamp(unit)), 1_000, TimeRules(), naive, "t")
    assert naive.bad_rows().tolist() == [0, 1, 2]


def test_a_float_of_seconds_keeps_its_milliseconds() -> None:
    ms = np.arange(1577797200000, 1577797201000)
    faults = Faults(len(ms))
    found = times_from_arrow(
        pa.array([float(f"{m // 1000}.{m % 1000:03d}") for m in ms.tolist()]), 1_000, TimeRules(), faults, "t"
    )
    assert found.values.tolist() == ms.tolist()


def test_instants_are_shown_as_they_are_read() -> None:
    assert iso(1577797200123, 1_000) == "2019-12-31T13:00:00.123Z"
    assert instant_ms("2019-12-31T13:00:00.123Z") == 1577797200123
    assert instant_ms("2019-12-31T13:00:00") is None
    assert instant_ms("") is None
