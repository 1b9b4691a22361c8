"""The bridge to an MQTT broker: a message is acknowledged when Kafka has acknowledged its events, and not before."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fluvial.producers.gateway.gate import Answer, Gate, RefusedError
from fluvial.producers.gateway.intake import Checked, TopicIntake
from fluvial.producers.gateway.keys import ANYONE
from fluvial.producers.gateway.mqtt_routes import Route, events_of
from fluvial.producers.gateway.sparkplug import SparkplugNodes, rebirth_payload

log = logging.getLogger(__name__)

UNACKNOWLEDGED = 5_000
SESSION_SECONDS = 86_400
BATCH_MESSAGES = 2_000
RETRY_SECONDS = (0.5, 10.0)

Reject = Callable[[str, bytes, str], None]


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came; ``connection`` numbers the connection that its ``mid`` belongs to."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    connection: int
    received_ms: int


class MqttBridge:
    """Subscribes, gathers, hands to the gate, acknowledges; one batch after the other, so that order is kept.

    The session outlives the connection: what was not acknowledged comes again. Several bridges of one ``group`` share the
    messages (shared subscriptions), but for Sparkplug, whose births every bridge must see: run one bridge of those.
    """

    def __init__(
        self, gate: Gate, routes: Sequence[Route], reject: Reject, *, url: str, client_id: str, group: str,
        username: str | None = None, password: str | None = None, ca: str | None = None,
    ) -> None:  # fmt: skip
        """``reject`` keeps a message that is no event, with the reason."""
        self._gate = gate
        self._routes = routes
        self._reject = reject
        self._url = urlsplit(url)
        self._group = group
        self._nodes = SparkplugNodes()
        self._connection = 0
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=True, reconnect_on_failure=True
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 10)
        if username is not None:
            self._client.username_pw_set(username, password)
        if self._url.scheme == "mqtts":
            self._client.tls_set(ca)

    @property
    def gaps(self) -> int:
        """How many Sparkplug sequence numbers did not come."""
        return self._nodes.gaps

    async def run(self, stop: asyncio.Event) -> None:
        """Bridge until ``stop`` is set; then finish the batch at hand and disconnect."""
        self._loop = asyncio.get_running_loop()
        make: Any = Properties
        properties = make(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_SECONDS
        properties.ReceiveMaximum = UNACKNOWLEDGED
        port = self._url.port or (8883 if self._url.scheme == "mqtts" else 1883)
        self._client.connect_async(self._url.hostname or "", port, 30, clean_start=False, properties=properties)
        self._client.loop_start()
        try:
            while not stop.is_set():
                batch = await self._gathered(stop)
                if all([await self._deliver(t, batch, stop) for t in dict.fromkeys(r.topic for r in self._routes)]):
                    self._acknowledge(batch)
        finally:
            self._client.disconnect()
            await asyncio.to_thread(self._client.loop_stop)

    async def _gathered(self, stop: asyncio.Event) -> list[Message]:
        stopping = asyncio.ensure_future(stop.wait())
        first = asyncio.ensure_future(self._queue.get())
        await asyncio.wait({stopping, first}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not first.done():
            first.cancel()
            return []
        batch = [first.result()]
        while len(batch) < BATCH_MESSAGES and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    async def _deliver(self, topic: str, batch: list[Message], stop: asyncio.Event) -> bool:
        """Return true when Kafka has the events of this topic; false when the bridge is to stop before that."""
        events, origin = self._events(topic, batch)
        if not events:
            return True

        def check(intake: TopicIntake, now_ms: int, prefix: str) -> Checked:
            return intake.from_objects(events, now_ms, prefix=prefix)

        delay, longest = RETRY_SECONDS
        while True:
            try:
                await self._gate.room(len(events))
                answer: Answer = await self._gate.take(topic, ANYONE, len(events), check)
                break
            except RefusedError as e:
                log.warning("mqtt: %s; the broker keeps the messages", e)
                if stop.is_set():
                    return False
                await asyncio.sleep(delay * random.uniform(0.7, 1.3))  # noqa: S311 – jitter
                delay = min(longest, 2 * delay)
        for r in answer.rejected:
            self._reject(origin[r.index].topic, origin[r.index].payload, r.reason)
        return True

    def _events(self, topic: str, batch: list[Message]) -> tuple[list[Any], list[Message]]:
        events: list[Any] = []
        origin: list[Message] = []
        for m in batch:
            found = next(((r, levels) for r in self._routes if (levels := r.match(m.topic)) is not None), None)
            if found is None or found[0].topic != topic:
                continue
            route, levels = found
            if route.is_sparkplug:
                made, rebirth = self._nodes.events_of(m.topic, m.payload, m.received_ms)
                if rebirth is not None:
                    self._client.publish(rebirth, rebirth_payload(), qos=0)
            else:
                made = events_of(levels, m.payload, m.received_ms)
            events += made
            origin += [m] * len(made)
        return events, origin

    def _acknowledge(self, batch: list[Message]) -> None:
        for m in batch:
            # A message identifier of an earlier connection may mean another message now.
            if m.qos and m.connection == self._connection:
                self._client.ack(m.mid, m.qos)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.warning("mqtt: the broker refuses the connection: %s", reason)
            return
        self._connection += 1
        shared = [f"$share/{self._group}/{r.filter}" for r in self._routes if not r.is_sparkplug]
        client.subscribe([(f, 1) for f in (*shared, *(r.filter for r in self._routes if r.is_sparkplug))])
        log.info("mqtt: connected to %s", self._url.hostname)

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.warning("mqtt: the connection broke (%s); connecting again", reason)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        now_ms = time.time_ns() // 1_000_000
        m = Message(message.topic, bytes(message.payload), message.mid, message.qos, self._connection, now_ms)
        self._loop.call_soon_threadsafe(self._queue.put_nowait, m)
