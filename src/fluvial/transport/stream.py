"""Agents that never acknowledge what they failed on: the stream, the topic and the agent class of a batch app."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any

import faust
from faust.types import EventT, Message
from mode.utils.futures import maybe_async

from fluvial.errors import TransportError
from fluvial.transport.batches import FetchedBatch

_SKIPPED = object()


class BatchSchema(faust.Schema):  # type: ignore[misc]
    """Passes the `FetchedBatch` of a batch topic to the agent, a handle of its own to each."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[EventT]]:
        """Return the function that makes an event of a message."""

        async def decode(message: Message, *, propagate: bool = False) -> EventT:
            return app.create_event(None, message.value.handle(), message.headers, message)

        return decode


class StrictTopic(faust.Topic):  # type: ignore[misc]
    """A topic of which a record that cannot be decoded stops the worker instead of being acknowledged."""

    async def on_key_decode_error(self, exc: Exception, message: Message) -> None:
        """Stop the worker."""
        await self._undecodable("key", exc, message)

    async def on_value_decode_error(self, exc: Exception, message: Message) -> None:
        """Stop the worker."""
        await self._undecodable("value", exc, message)

    async def _undecodable(self, part: str, exc: Exception, message: Message) -> None:
        # The conductor has acknowledged the message by now; fail_stop keeps that from being committed.
        await self.app.fail_stop(
            TransportError(
                f"cannot decode the {part} of {message.topic}[{message.partition}]@{message.offset}: {exc}",
                hint="correct the topic's serializer, or read it as a batch topic and set bad rows aside",
            )
        )


class BatchesTopic(StrictTopic):
    """A batch topic. Its buffer asks for a pause long before it is full, so no slow agent blocks another's topic."""

    @property
    def queue(self) -> Any:
        """The buffer between the consumer and this topic's agent."""
        fresh = self._queue is None
        queue = super().queue
        if fresh:
            queue.pressure_high_size = self.app.buffered_batches
            queue.pressure_drop_size = self.app.buffered_batches // 2
        return queue


class StrictEvent(faust.Event):  # type: ignore[misc]
    """An event that ``async with event:`` acknowledges when its block ends without an exception."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if kind is None:
            self.ack()


class AckOnResume(faust.Stream):  # type: ignore[misc]
    """A stream that acknowledges an event when the agent asks for the next one, and in no other case.

    Faust acknowledges in a ``finally``, so also when the agent raised, was cancelled or left the loop.
    """

    async def _py_aiter(self) -> AsyncIterator[Any]:
        self._finalized = True
        started = await self.maybe_start()
        consumer = self.app.consumer
        try:
            while not self.should_stop:
                event, value, state = await self._take_next()
                if value is not _SKIPPED:
                    self.events_total += 1
                    in_hand = event.message if event is not None else None
                    if isinstance(value, FetchedBatch):
                        value.bind(partial(self._finish, event))
                    if in_hand is not None:
                        consumer.in_hand.add(in_hand)
                    try:
                        yield value
                    finally:
                        self.current_event = None
                        consumer.in_hand.discard(in_hand)
                        consumer.wake()
                    if isinstance(value, FetchedBatch) and self.enable_acks and not value.held:
                        value.bind(None)  # the event and its batch would keep each other's bytes until a collection
                if event is not None:
                    if self.enable_acks and not (isinstance(value, FetchedBatch) and value.held):
                        self._finish(event)
                    self._on_stream_event_out(event.message.tp, event.message.offset, self, event, state)
        except StopAsyncIteration:
            return
        finally:
            self._channel_stop_iteration(self.channel)
            if started:
                await self.stop()
                self.service_reset()

    _c_aiter = _py_aiter

    async def _take_next(self) -> tuple[EventT | None, Any, Any]:
        """Return the next event, its processed value (`_SKIPPED` when filtered out), and the sensors' state."""
        while True:
            await asyncio.sleep(0)
            item = await self.channel.__anext__()
            if not isinstance(item, EventT):
                self._set_current_event(None)
                event, value, state = None, item, None
            else:
                event, message, value = item, item.message, item.value
                if not self.app.flow_control.is_active() or message.generation_id != self.app.consumer_generation_id:
                    continue  # from before a rebalance: whoever owns the partition now reads it again
                if message.topic in self.app.topics.acking_topics:
                    if not self.app.consumer.is_current(message):
                        continue  # from before a seek
                    if not message.tracked:
                        message.tracked = True
                        self.app.consumer.track_message(message)
                state = self._on_stream_event_in(message.tp, message.offset, self, event)
                self._set_current_event(event)
            try:
                for processor in self._processors:
                    value = await maybe_async(processor(value))
                value = await self.on_merge(value)
            except faust.exceptions.Skip:
                value = _SKIPPED
            if event is not None or value is not None:
                return event, value, state

    def _finish(self, event: EventT) -> None:
        if event.ack():
            self._on_message_out(event.message.tp, event.message.offset, event.message)

    async def ack(self, event: EventT) -> bool:
        """Acknowledge an event; not while the agent is being torn down, where ``take`` would acknowledge its buffer."""
        if isinstance(sys.exception(), GeneratorExit | asyncio.CancelledError):
            return False
        return bool(await super().ack(event))


class FailStopAgent(faust.Agent):  # type: ignore[misc]
    """An agent whose exception ends the worker; Faust would acknowledge the event and start the agent again."""

    async def _execute_actor(self, coro: Awaitable[Any], aref: Any) -> None:
        await super()._execute_actor(self._guarded(coro), aref)

    async def _guarded(self, coro: Awaitable[Any]) -> None:
        try:
            await coro
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as e:
            # Native decoders panic with a BaseException; asyncio would lose it and the partition would stand still.
            error = e if isinstance(e, Exception) else TransportError(f"agent {self.name} died of {e!r}")
            await self.app.fail_stop(error)
            raise error from e
