"""The promise: a batch is answered when Kafka has acknowledged it at acks=all, or with a refusal that says what to do."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fluvial.errors import FluvialError, PublishError
from fluvial.producers.gateway.intake import Checked, Rejection, TopicIntake
from fluvial.producers.gateway.keys import Grant
from fluvial.producers.gateway.rates import RateLimiter
from fluvial.schemas.sources import RegistryUnavailableError
from fluvial.transport.publisher import Publisher

Check = Callable[[TopicIntake, int, str], Checked]
Kind = Literal["busy", "unavailable", "denied", "invalid", "too-large", "unknown-topic", "closing"]


class RefusedError(FluvialError):
    """A batch was not taken; nothing of it is in the log unless ``kind`` is "unavailable" (then nobody knows)."""

    def __init__(self, kind: Kind, message: str, *, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """``accepted`` events are durably in the log; the others are ``rejected``, each with its place and reason."""

    accepted: int
    rejected: tuple[Rejection, ...]


class Gate:
    """Takes batches for the topics of one deployment. One per process; safe for many requests at a time.

    ``max_in_flight`` bounds the events that wait for Kafka: a batch beyond it is refused at once, not queued.
    """

    def __init__(
        self,
        publisher: Publisher,
        topics: Mapping[str, TopicIntake],
        *,
        max_in_flight: int,
        ack_timeout_seconds: float,
        events_per_second: float,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._publisher = publisher
        self.topics = topics
        self._max_in_flight = max_in_flight
        self._ack_timeout_seconds = ack_timeout_seconds
        self._rates = RateLimiter(events_per_second)
        self._clock_ms = clock_ms
        self._waiting = 0
        self._less = asyncio.Event()
        self.closing = False
        self.counts: dict[tuple[str, str], int] = {}

    @property
    def waiting(self) -> int:
        """How many accepted events wait for their acknowledgement."""
        return self._waiting

    async def room(self, events: int) -> None:
        """Wait until a batch of so many events would not be refused as busy: for streams, whose sender can be held back."""
        while self._waiting and self._waiting + events > self._max_in_flight:
            self._less.clear()
            await self._less.wait()

    async def take(self, topic: str, grant: Grant, events: int, check: Check) -> Answer:
        """Check, publish and wait until Kafka has acknowledged; ``check`` runs in a thread when the batch is large.

        Raises:
            RefusedError: nothing was taken, or nobody knows (kind "unavailable"): the batch may be sent again.
        """
        intake = self._admit(topic, grant, events)
        self._waiting += events
        try:
            checked = await self._checked(check, intake, grant, events)
            if checked.accepted:
                await self._published(checked)
        except RefusedError as e:
            self._count(topic, e.kind, events)
            raise
        finally:
            self._waiting -= events
            self._less.set()
        self._count(topic, "accepted", checked.accepted)
        self._count(topic, "rejected", len(checked.rejected))
        return Answer(checked.accepted, checked.rejected)

    def _admit(self, topic: str, grant: Grant, events: int) -> TopicIntake:
        if self.closing:
            raise RefusedError(
                "closing", "the gateway is shutting down", hint="send it to another one", retry_after_seconds=1
            )
        if not grant.may_publish(topic):
            raise RefusedError("denied", f"key {grant.name} may not publish to {topic}", hint="ask for a key that may")
        intake = self.topics.get(topic)
        if intake is None:
            raise RefusedError(
                "unknown-topic", f"no event topic {topic}", hint=f"topics are {', '.join(sorted(self.topics))}"
            )
        if self._waiting and self._waiting + events > self._max_in_flight:
            self._count(topic, "busy", events)
            raise RefusedError(
                "busy", f"{self._waiting:,} events wait for Kafka already", hint="slow down", retry_after_seconds=1
            )
        wait = self._rates.wait_seconds(grant, events)
        if wait > 0:
            self._count(topic, "busy", events)
            raise RefusedError(
                "busy", f"key {grant.name} is over its rate", hint="send it later", retry_after_seconds=wait
            )
        return intake

    async def _checked(self, check: Check, intake: TopicIntake, grant: Grant, events: int) -> Checked:
        try:
            if events < 50:
                return check(intake, self._clock_ms(), grant.prefix)
            return await asyncio.to_thread(check, intake, self._clock_ms(), grant.prefix)
        except RegistryUnavailableError as e:
            raise RefusedError("unavailable", e.message, hint="send it again", retry_after_seconds=5) from e

    async def _published(self, checked: Checked) -> None:
        try:
            async with asyncio.timeout(self._ack_timeout_seconds):
                await (await self._publisher.publish(checked.topic, checked.keys, checked.values))
        except (PublishError, TimeoutError) as e:
            why = "Kafka did not acknowledge in time" if isinstance(e, TimeoutError) else e.message
            raise RefusedError(
                "unavailable", why, hint="send it again: repeats are recognised downstream", retry_after_seconds=5
            ) from e

    def _count(self, topic: str, outcome: str, events: int) -> None:
        known = topic if topic in self.topics else "other"
        self.counts[known, outcome] = self.counts.get((known, outcome), 0) + events
