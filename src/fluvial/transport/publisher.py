"""The publisher: whole columns of records into Kafka, each acknowledged by all in-sync replicas or reported."""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from fluvial import failpoints
from fluvial.errors import PublishError
from fluvial.records import I64, Spans
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.delivery import Chunk, Delivery, OutRecord

__all__ = ["Delivery", "OutRecord", "Publisher"]

log = logging.getLogger(__name__)

MAX_IN_FLIGHT_BYTES = 128 << 20
# A dead letter wraps a record of its topic's largest size; librdkafka by itself stops at 1 MB, whatever a topic takes.
MAX_RECORD_BYTES = 8 << 20
CHUNK = 5_000
DRAIN_SECONDS = 10.0
POLL_SECONDS = 0.005


class Publisher:
    """Publishes columns of records: acks=all, idempotent, partitioned as Java does (murmur2), bounded in flight.

    Use it as an async context manager; leaving it waits for everything in flight. ``max_in_flight`` bounds the records
    that wait for their acknowledgement (and 128 MiB their bytes). ``gapless``: once a record of a partition has failed for
    good, no later one follows it there; everything after it fails as well (`fatal`).

    Raises:
        PublishError: on leaving, when something published was not acknowledged and its `Delivery` was not awaited.
    """

    def __init__(self, kafka: KafkaSettings, *, max_in_flight: int = 200_000, gapless: bool = False) -> None:
        self._max_in_flight = max_in_flight
        self._chunk = max(1, min(CHUNK, max_in_flight // 4))
        self._config = {
            **librdkafka_config(kafka),
            "acks": "all",
            "enable.idempotence": True,
            "enable.gapless.guarantee": gapless,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "message.timeout.ms": 120_000,
            # A broker that stands still, or is behind a cut, is left for its successor then; after 60 s by default.
            "socket.timeout.ms": 10_000,
            "batch.size": 1_000_000,
            "message.max.bytes": MAX_RECORD_BYTES,
            # Never the limit: `publish` waits for room first, and a full queue would let later records overtake.
            "queue.buffering.max.messages": 2 * max_in_flight + CHUNK,
            "queue.buffering.max.kbytes": (4 * MAX_IN_FLIGHT_BYTES) >> 10,
            "error_cb": self._on_error,
        }
        self._fatal: str | None = None
        self._records = 0
        self._bytes = 0
        self._pending: set[Delivery] = set()
        self._failures: list[Delivery] = []

    async def __aenter__(self) -> "Publisher":
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._admission = asyncio.Lock()
        self._producer = Producer(self._config, logger=log)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="fluvial-publisher", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
            elif self._pending:
                await asyncio.wait([d.future for d in self._pending], timeout=DRAIN_SECONDS)
        finally:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join, 5)
            for delivery in list(self._pending):
                delivery.abandon("the publisher was closed")

    @property
    def fatal(self) -> str | None:
        """Why nothing can be published any more, or None."""
        return self._fatal

    @property
    def in_flight(self) -> int:
        """How many records wait for their acknowledgement."""
        return self._records

    async def publish(
        self,
        topic: str,
        keys: Spans | None,
        values: Spans,
        *,
        partition: int | None = None,
        timestamps: I64 | None = None,
    ) -> Delivery:
        """Hand n records to the producer, waiting only for room; records of one partition keep their order.

        ``keys`` and ``values`` have n spans each (length −1 is null), ``timestamps`` n epoch milliseconds (then
        the records go one by one, some three times slower).

        Raises:
            PublishError: the producer had a fatal error before, so nothing more can be published.
        """
        n = len(values)
        delivery = self._begin(topic, n)
        for a in range(0, n, self._chunk):
            rows = slice(a, min(a + self._chunk, n))
            chunk_keys = None if keys is None else Spans(keys.buffer, keys.start[rows], keys.length[rows])
            chunk_values = Spans(values.buffer, values.start[rows], values.length[rows])
            chunk_timestamps = None if timestamps is None else timestamps[rows]
            size = _size(chunk_values) + (0 if chunk_keys is None else _size(chunk_keys))
            chunk = await self._admit(delivery, len(chunk_values), size)
            self._submit(self._send, chunk, topic, chunk_keys, chunk_values, partition, chunk_timestamps)
        return delivery

    async def publish_records(self, topic: str, records: Sequence[OutRecord]) -> Delivery:
        """Hand a few records with headers to the producer; otherwise as `publish`."""
        delivery = self._begin(topic, len(records))
        for a in range(0, len(records), self._chunk):
            part = records[a : a + self._chunk]
            size = sum(len(r.key or b"") + len(r.value or b"") for r in part)
            chunk = await self._admit(delivery, len(part), size)
            self._submit(self._send_records, chunk, topic, part)
        return delivery

    async def flush(self) -> None:
        """Wait until everything published so far is acknowledged.

        Raises:
            PublishError: some of it was not, and its `Delivery` was not awaited.
        """
        if self._pending:
            await asyncio.wait([d.future for d in self._pending])
        unseen, self._failures = [d for d in self._failures if not d.awaited], []
        for delivery in unseen:
            await delivery

    def _begin(self, topic: str, records: int) -> Delivery:
        if self._fatal is not None:
            raise PublishError(
                f"cannot publish to {topic}: the producer had a fatal error: {self._fatal}",
                hint="restart the service; what was not acknowledged may or may not be in the log",
            )
        delivery = Delivery(topic, records, self._loop)
        if records:
            self._pending.add(delivery)
            delivery.future.add_done_callback(lambda _: self._settled(delivery))
        return delivery

    def _settled(self, delivery: Delivery) -> None:
        self._pending.discard(delivery)
        if not delivery.future.cancelled() and delivery.future.exception() is not None:
            self._failures.append(delivery)

    async def _admit(self, delivery: Delivery, records: int, size: int) -> Chunk:
        async with self._admission:
            while self._records and (
                self._records + records > self._max_in_flight or self._bytes + size > MAX_IN_FLIGHT_BYTES
            ):
                self._room.clear()
                await self._room.wait()
            self._records += records
            self._bytes += size
        return Chunk(self._settle_soon, delivery, records, size)

    def _submit(self, send: Any, chunk: Chunk, *args: Any) -> None:
        self._jobs.put(partial(self._guarded, send, chunk, *args))

    def _guarded(self, send: Any, chunk: Chunk, *args: Any) -> None:
        try:
            refused = send(chunk, *args)
        except BaseException as e:  # noqa: BLE001 — whatever went wrong, whoever waits for the delivery must hear of it
            chunk.refuse(chunk.records, repr(e))
        else:
            if refused:
                chunk.refuse(len(refused), str(refused[0]))

    def _send(
        self,
        chunk: Chunk,
        topic: str,
        keys: Spans | None,
        values: Spans,
        partition: int | None,
        timestamps: I64 | None,
    ) -> list[Any]:
        texts = _slices(values)
        if timestamps is not None:
            # librdkafka's batch call takes no timestamps.
            names = [None] * len(texts) if keys is None else _slices(keys)
            rows = zip(names, texts, timestamps.tolist(), strict=True)
            return self._send_records(chunk, topic, (OutRecord(k, v, (), partition, t) for k, v, t in rows))
        messages: list[dict[str, Any]]
        if keys is None:
            messages = [{"value": v} for v in texts]
        else:
            messages = [{"key": k, "value": v} for k, v in zip(_slices(keys), texts, strict=True)]
        at = -1 if partition is None else partition
        sent = self._producer.produce_batch(topic, messages, partition=at, on_delivery=chunk.reported)
        return [m["_error"] for m in messages if "_error" in m] if sent < len(messages) else []

    def _send_records(self, chunk: Chunk, topic: str, records: Iterable[OutRecord]) -> list[Any]:
        refused: list[Any] = []
        for r in records:
            try:
                self._producer.produce(
                    topic,
                    value=r.value,
                    key=r.key,
                    partition=-1 if r.partition is None else r.partition,
                    timestamp=r.timestamp or 0,
                    headers=list(r.headers),
                    on_delivery=chunk.reported,
                )
            except (KafkaException, BufferError, ValueError, TypeError) as e:
                refused.append(e)
        return refused

    def _settle_soon(self, chunk: Chunk) -> None:
        # After the loop has been closed nobody waits for the delivery any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, chunk)

    def _settle(self, chunk: Chunk) -> None:
        if chunk.settled:
            return
        failpoints.hit("publisher.before-delivery-report")
        chunk.settled = True
        self._records -= chunk.records
        self._bytes -= chunk.bytes
        chunk.delivery.settle(chunk.records, min(chunk.failed + chunk.refused, chunk.records), chunk.error)
        self._room.set()

    def _work(self) -> None:
        # One thread sends and polls: a second one that polled would take the interpreter's lock from it all the time.
        while True:
            try:
                job = self._jobs.get_nowait() if len(self._producer) else self._jobs.get()
            except queue.Empty:
                self._producer.poll(POLL_SECONDS)
                continue
            if job is None:
                break
            job()
            self._producer.poll(0)
        self._producer.purge()
        self._producer.poll(0)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()


def _slices(spans: Spans) -> list[bytes | None]:
    """Return the spans as bytes objects."""
    if len(spans) == 0:
        return []
    start, end = spans.start.tolist(), (spans.start + spans.length).tolist()
    low, high = min(start), max(max(end), 0)
    text = spans.buffer[low:high].tobytes()
    if int(spans.length.min()) >= 0:
        return [text[a - low : b - low] for a, b in zip(start, end, strict=True)]
    return [text[a - low : b - low] if b >= a else None for a, b in zip(start, end, strict=True)]


def _size(spans: Spans) -> int:
    return int(spans.length.clip(0).sum())
