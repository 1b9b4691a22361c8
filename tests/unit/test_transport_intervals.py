"""The finished prefix, held to an oracle that keeps sets of single offsets."""

from hypothesis import given
from hypothesis import strategies as st

from fluvial.transport.intervals import FinishedPrefix


@given(
    start=st.integers(0, 1 << 50),
    lengths=st.lists(st.integers(1, 9), max_size=12),
    order=st.randoms(use_true_random=False),
    delivered_before=st.floats(0, 1),
)
def test_the_position_is_the_end_of_the_contiguous_finished_offsets(start, lengths, order, delivered_before) -> None:
    prefix = FinishedPrefix(start)
    finished: set[int] = set()
    waiting: list[tuple[int, int]] = []
    at, todo = start, list(lengths)
    while todo or waiting:
        if todo and (not waiting or order.random() < delivered_before):
            end = at + todo.pop(0)
            prefix.deliver(at, end)
            waiting.append((at, end))
            at = end
            assert prefix.delivered == end
        else:
            first, end = waiting.pop(order.randrange(len(waiting)))
            assert first in prefix
            assert prefix.finish(first)
            assert first not in prefix
            assert not prefix.finish(first)
            finished |= set(range(first, end))
        expected = start
        while expected in finished:
            expected += 1
        assert prefix.position == expected
        assert len(prefix) == len(waiting)
    assert prefix.position == at


def test_what_was_never_delivered_does_not_count() -> None:
    prefix = FinishedPrefix(7)
    assert not prefix.finish("stale")
    assert prefix.position == 7
