"""What is sent to the source topic: devices that repeat until they are heard, a gateway, a ticker."""

import asyncio

import numpy as np

from fluvial.errors import PublishError
from fluvial.records import Spans
from fluvial.settings import KafkaSettings
from fluvial.transport.headers import TICK_HEADER
from support.simulated.clients import FakePublisher
from support.simulated.declared import SOURCE, Deployment
from support.simulated.kafka import FakeKafka, Stored
from support.simulated.loop import VirtualLoop
from support.simulated.plan import PARTITIONS, Plan, Sending

ANSWER_SECONDS = 3.0
TICK_BEHIND_MS = 2_000
FAR_MS = 3_600_000


class Senders:
    """The devices of a plan, and their journal of what a gateway has acknowledged."""

    def __init__(self, loop: VirtualLoop, kafka: FakeKafka, plan: Plan, deployment: Deployment) -> None:
        self.journal: list[Sending] = []
        self._loop = loop
        self._kafka = kafka
        self._plan = plan
        self._deployment = deployment
        self._inbox: list[tuple[Sending, asyncio.Future[None]]] = []
        self._mail = asyncio.Event()

    async def send_all(self) -> None:
        """Send everything; every device by itself."""
        by_device: dict[str, list[Sending]] = {}
        for s in self._plan.sendings:
            by_device.setdefault(s.device, []).append(s)
        await asyncio.gather(*(self._device(sendings) for sendings in by_device.values()))

    async def _device(self, sendings: list[Sending]) -> None:
        """Send one after the other, each again until a gateway has acknowledged it."""
        for s in sendings:
            await asyncio.sleep(max(0.0, s.at - self._loop.time()))
            for _ in range(s.times):
                while True:
                    answer: asyncio.Future[None] = self._loop.create_future()
                    self._inbox.append((s, answer))
                    self._mail.set()
                    try:
                        await asyncio.wait_for(answer, ANSWER_SECONDS)
                        break
                    except (TimeoutError, PublishError):
                        continue
            self.journal.append(s)

    async def gateway(self) -> None:
        """Be a gateway process: acknowledge what Kafka has acknowledged."""
        async with FakePublisher(KafkaSettings()) as publisher:
            forwarding: set[asyncio.Task[None]] = set()
            while True:
                while not self._inbox:
                    self._mail.clear()
                    await self._mail.wait()
                task = asyncio.create_task(self._forward(publisher, *self._inbox.pop(0)))
                forwarding.add(task)
                task.add_done_callback(forwarding.discard)

    async def _forward(self, publisher: FakePublisher, s: Sending, answer: "asyncio.Future[None]") -> None:
        value = s.garbage if s.garbage is not None else self.encoded(s)
        try:
            await (await publisher.publish(SOURCE, _spans(s.device.encode()), _spans(value)))
        except PublishError as e:
            if not answer.done():
                answer.set_exception(e)
        else:
            if not answer.done():
                answer.set_result(None)

    def encoded(self, s: Sending) -> bytes:
        """Return an event's bytes."""
        return self._deployment.event.write(
            {
                "device": s.device,
                "channel": "x",
                "event_time": s.event_time,
                "value": s.value,
                "sequence": s.sequence,
                "items": list(s.items),
            }
        )

    async def tick(self) -> None:
        """Tell every partition the time now and then."""
        for at in self._plan.ticks:
            await asyncio.sleep(max(0.0, at - self._loop.time()))
            self._tick(self._kafka.now_ms - TICK_BEHIND_MS)

    def close_windows(self) -> None:
        """Tell every partition a time after all windows."""
        self._tick(self._kafka.now_ms + FAR_MS)

    def _tick(self, instant: int) -> None:
        for p in range(PARTITIONS):
            header = ((TICK_HEADER, str(instant).encode()),)
            self._kafka.append(SOURCE, p, [Stored(-1, 0, None, None, header)], "ticker")


def _spans(data: bytes) -> Spans:
    return Spans(np.frombuffer(data or b"\0", np.uint8), np.zeros(1, np.int64), np.array([len(data)], np.int64))
