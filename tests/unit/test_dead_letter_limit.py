"""The limit that stops a worker when nearly everything is bad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.errors import DeadLetterLimitError
from fluvial.schemas.dead_letters import DeadLetterLimit


def note(limit: DeadLetterLimit, bad: list[bool]) -> None:
    limit.note("t", 0, len(bad), np.flatnonzero(np.array(bad, np.bool_)))


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), max_size=12), st.integers(1, 8))
def test_a_run_is_counted_across_batches_and_stops_exactly_at_the_limit(batches: list[list[bool]], run: int) -> None:
    limit, in_a_row = DeadLetterLimit(ratio=1.0, run=run), 0
    for batch in batches:
        longest = 0
        for bad in batch:
            in_a_row = in_a_row + 1 if bad else 0
            longest = max(longest, in_a_row)
        if longest >= run:
            with pytest.raises(DeadLetterLimitError, match="in a row"):
                note(limit, batch)
            return
        note(limit, batch)


def test_half_of_the_last_ten_thousand_stops_and_a_few_do_not() -> None:
    limit = DeadLetterLimit(ratio=0.5, run=10_000)
    note(limit, [i % 10 == 0 for i in range(20_000)])
    with pytest.raises(DeadLetterLimitError, match="of the last 10,000"):
        note(limit, [i % 2 == 0 for i in range(10_000)])


def test_a_handful_of_bad_records_at_the_start_is_no_reason_to_stop() -> None:
    note(DeadLetterLimit(ratio=0.5, run=10_000), [True] * 9 + [False])
