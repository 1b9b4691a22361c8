"""The choice to go on after a gap: for whom, once, and what is told."""

import pytest

from fluvial.errors import SettingsError
from fluvial.transport.available import FromAvailable, Gap, GapPolicy

GAP = Gap("iot.readings", 3, 18_234, 20_011, 43_127, 1_767_225_600_000)


@pytest.mark.parametrize("choice", ["iot.readings:3", "iot.readings:3@18234", "all"])
def test_a_gap_is_accepted_once(choice: str) -> None:
    chosen = FromAvailable(["social.posts:3", choice])
    assert chosen.accepts(GAP)
    assert not chosen.accepts(GAP)


@pytest.mark.parametrize("choice", ["iot.readings:2", "iot.readings:3@18235", "iot:3", "social.posts:3"])
def test_another_gap_is_not_accepted(choice: str) -> None:
    assert not FromAvailable([choice]).accepts(GAP)
    assert not FromAvailable().accepts(GAP)


def test_a_partition_that_began_without_a_gap_has_none_accepted_later() -> None:
    chosen = FromAvailable(["all"])
    chosen.settle("iot.readings", 3)
    assert not chosen.accepts(GAP)
    assert chosen.accepts(Gap("iot.readings", 2, 0, 1, 2))


@pytest.mark.parametrize("choice", ["", "iot.readings", "iot.readings:x", "iot.readings:3@", "ALL", "a b:1"])
def test_anything_else_is_refused(choice: str) -> None:
    with pytest.raises(SettingsError, match="names no partition"):
        FromAvailable([choice])


def test_what_is_told() -> None:
    assert str(GAP) == (
        "iot.readings[3] is to be read on from offset 18234, but the log has the offsets 20011 to 43126 now: "
        "1777 offsets were deleted unread; the first record left is of 2026-01-01T00:00:00Z"
    )
    assert "but the log is empty now: 5 offsets were deleted unread" in str(Gap("t", 0, 5, 10, 10))
    assert "offsets 0 to 9 now: it was truncated, or" in str(Gap("t", 0, 11, 0, 10))
    assert FromAvailable([GAP.choice]).accepts(GAP)


def test_a_log_that_ends_too_early_is_accepted_only_where_rereading_changes_nothing() -> None:
    anew = Gap("t", 0, 11, 0, 10)
    assert not GapPolicy(FromAvailable(["all"])).accepts(anew)
    assert GapPolicy(FromAvailable(["all"]), rereads=True).accepts(anew)
