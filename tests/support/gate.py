"""A gate on a publisher that acknowledges when a test says so."""

import asyncio
from collections.abc import Callable
from typing import Any

from fluvial.errors import PublishError
from fluvial.producers.gateway.gate import Gate
from fluvial.producers.gateway.intake import NOTHING_HIDDEN, TopicIntake
from fluvial.producers.gateway.privacy import Privacy
from fluvial.records import Spans
from fluvial.schemas.avro import load_schema
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.sources import SchemaMap

NOW_MS = 1_800_000_000_000
READINGS, POSTS = "iot.readings", "social.posts"


class HeldPublisher:
    """Keeps what is published; acknowledges at once, or, after `hold`, when `release` or `fail` is called."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | None, bytes | None]] = []
        self._held: list[asyncio.Future[None]] | None = None

    async def publish(self, topic: str, keys: Spans, values: Spans) -> "asyncio.Future[None]":
        """Keep n records."""
        self.records += [(topic, keys.bytes_at(i), values.bytes_at(i)) for i in range(len(values))]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._held is None:
            done.set_result(None)
        else:
            self._held.append(done)
        return done

    @property
    def held(self) -> int:
        """How many batches wait."""
        return len(self._held or ())

    def hold(self) -> None:
        """Acknowledge nothing from now on."""
        self._held = []

    def release(self) -> None:
        """Acknowledge what waits, and everything after it at once."""
        held, self._held = self._held or [], None
        for f in held:
            if not f.done():  # who waited for it may have gone
                f.set_result(None)

    def fail(self) -> None:
        """Report what waits as not acknowledged."""
        held, self._held = self._held or [], []
        for f in [f for f in held if not f.done()]:
            f.set_exception(PublishError("not acknowledged", hint="again"))


def intake(topic: str = READINGS, privacy: Privacy = NOTHING_HIDDEN) -> TopicIntake:
    """Return a topic's checks; schema id 1 is the topic's own, 2 that of strings."""
    event, key = (
        ("fluvial.iot.SensorReading", "sensor_id") if topic == READINGS else ("fluvial.social.SocialPost", "author_id")
    )
    schema = load_schema(event)
    return TopicIntake(
        topic, schema, key=key, event_time="event_time",
        not_empty=frozenset({key, "metric"} if topic == READINGS else {key, "network"}),
        encoder=Encoder(schema, 1), decoder=Decoder(schema, SchemaMap({1: schema, 2: {"type": "string"}})), max_ahead_ms=300_000,
        privacy=privacy,
    )  # fmt: skip


def gate(publisher: Any, clock_ms: Callable[[], int] = lambda: NOW_MS, **options: Any) -> Gate:
    """Return a gate of both topics."""
    defaults = {"max_in_flight": 10_000, "ack_timeout_seconds": 10.0, "events_per_second": 0.0}
    return Gate(publisher, {READINGS: intake(), POSTS: intake(POSTS)}, clock_ms=clock_ms, **{**defaults, **options})  # type: ignore[arg-type]


def reading(**fields: Any) -> dict[str, Any]:
    """Return a good reading, with some fields changed (None: left out)."""
    whole = {"sensor_id": "s1", "metric": "t", "event_time": NOW_MS, "value": 21.5, **fields}
    return {k: v for k, v in whole.items() if v is not None}
