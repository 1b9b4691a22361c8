"""The ticker: every partition hears the time, never an earlier one, and a dead producer ends it."""

import asyncio
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from fluvial.errors import PublishError
from fluvial.producers.ticker import Ticker
from fluvial.transport.publisher import OutRecord


class Delivery:
    def __init__(self, error: PublishError | None) -> None:
        self.error = error

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.sleep(0).__await__()
        if self.error:
            raise self.error


class Publisher:
    """Notes ticks; ``fails`` are rounds that are not acknowledged, ``dead`` the one at which the producer dies."""

    def __init__(self, fails: Sequence[int] = (), dead: int | None = None) -> None:
        self.ticks: list[tuple[str, int | None, int]] = []
        self.rounds = 0
        self._fails, self._dead = fails, dead

    async def publish_records(self, topic: str, records: Sequence[OutRecord]) -> Delivery:
        self.rounds += 1
        if self.rounds == self._dead:
            raise PublishError("fatal")
        for r in records:
            assert (r.key, r.value) == (None, None)
            ((name, value),) = r.headers
            assert name == "fluvial-tick"
            self.ticks.append((topic, r.partition, int(value)))
        return Delivery(PublishError("lost") if self.rounds in self._fails else None)


async def ticked(
    publisher: Publisher, clock: Sequence[int], topics: dict[str, int]
) -> list[tuple[str, int | None, int]]:
    """Run a ticker until its clock has been read to its end."""
    stop = asyncio.Event()
    left = list(clock)

    def now() -> int:
        if len(left) == 1:
            stop.set()
        return left.pop(0)

    ticker = Ticker(publisher, topics, tick_seconds=0.0001, now_ms=now, delay_ms=100)  # type: ignore[arg-type]
    await asyncio.wait_for(ticker.run(stop), 10)
    return publisher.ticks


async def test_every_partition_of_every_topic_is_told_the_time_less_the_delay() -> None:
    assert await ticked(Publisher(), [1_000, 2_000], {"a": 2, "b": 1}) == [
        ("a", 0, 900), ("a", 1, 900), ("b", 0, 900), ("a", 0, 1_900), ("a", 1, 1_900), ("b", 0, 1_900),
    ]  # fmt: skip


async def test_a_clock_that_moves_back_or_stands_still_ticks_nothing() -> None:
    ticks = await ticked(Publisher(), [1_000, 1_000, 500, 1_001], {"a": 1})
    assert [t for _, _, t in ticks] == [900, 901]


async def test_lost_ticks_are_made_up_for_by_the_next() -> None:
    ticks = await ticked(Publisher(fails=[1]), [1_000, 2_000], {"a": 1})
    assert [t for _, _, t in ticks] == [900, 1_900]


async def test_a_dead_producer_ends_the_ticker() -> None:
    with pytest.raises(PublishError, match="fatal"):
        await ticked(Publisher(dead=2), [1_000, 2_000, 3_000], {"a": 1})
