"""What hands batches to an agent, and when it acknowledges them."""

import asyncio
from functools import partial
from typing import Protocol

from faust.types import TP

from fluvial.transport import intervals
from fluvial.transport.batches import FetchedBatch


class Passing:
    """A batch on its way through one agent, and the prefix that it belongs to."""

    def __init__(self, tp: TP, batch: FetchedBatch, prefix: intervals.FinishedPrefix, generation: int) -> None:
        self.tp = tp
        self.batch = batch
        self.prefix = prefix
        self.generation = generation


class Hands(Protocol):
    """What a stream knows of its app."""

    flowing: bool
    generation: int
    in_hand: set[Passing]

    def finish(self, message: Passing) -> None: ...
    def wake(self) -> None: ...


class AgentStream:
    """Hands batches to an agent; asking for the next one acknowledges the last, unless it was held."""

    def __init__(self, app: "Hands") -> None:
        self._app = app
        self._last: tuple[Passing, FetchedBatch] | None = None
        self.waiting: list[Passing] = []
        self.filled = asyncio.Event()

    def __aiter__(self) -> "AgentStream":
        return self

    async def __anext__(self) -> FetchedBatch:
        app = self._app
        if self._last is not None:
            message, batch = self._last
            self._last = None
            app.in_hand.discard(message)
            if not batch.held:
                app.finish(message)
        while True:
            await asyncio.sleep(0)
            if not self.waiting:
                self.filled.clear()
                await self.filled.wait()
                continue
            message = self.waiting.pop(0)
            app.wake()
            if not app.flowing or message.generation != app.generation:
                continue
            handle = message.batch.handle()
            handle.bind(partial(app.finish, message))
            app.in_hand.add(message)
            self._last = (message, handle)
            return handle
