"""Stand-ins for the product's Kafka clients: the publisher, and the consumer that reads checkpoints."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from confluent_kafka import KafkaError, TopicPartition

from fluvial.records import I64, Spans
from fluvial.transport.delivery import Delivery, OutRecord
from support.simulated.kafka import FakeKafka, Stored
from support.simulated.loop import Process, current_process


class World(Protocol):
    """What the stand-ins find of the run they are in."""

    kafka: FakeKafka


def here() -> tuple[Process, Any]:
    """Return the running process and its world."""
    process = current_process()
    assert process is not None, "only processes have clients"
    return process, process.world


class FakePublisher:
    """`fluvial.transport.publisher.Publisher` on a `FakeKafka`; its deliveries are the product's."""

    def __init__(self, kafka: Any, **_: Any) -> None:
        self._process, world = here()
        self._kafka: FakeKafka = world.kafka

    async def __aenter__(self) -> "FakePublisher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    async def publish(
        self,
        topic: str,
        keys: Spans | None,
        values: Spans,
        *,
        partition: int | None = None,
        timestamps: I64 | None = None,
    ) -> Delivery:
        n = len(values)
        where = [partition] * n if partition is not None else self._kafka.partitions_of(topic, keys, n)
        records = [
            Stored(
                -1,
                0 if timestamps is None else int(timestamps[i]),
                None if keys is None else keys.bytes_at(i),
                values.bytes_at(i),
            )
            for i in range(n)
        ]
        return self._send(topic, where, records)

    async def publish_records(self, topic: str, records: Sequence[OutRecord]) -> Delivery:
        where = [
            r.partition if r.partition is not None else self._kafka.partitions_of(topic, _one_key(r.key), 1)[0]
            for r in records
        ]
        return self._send(topic, where, [Stored(-1, r.timestamp or 0, r.key, r.value, r.headers) for r in records])

    async def flush(self) -> None:
        return None

    def _send(self, topic: str, where: Sequence[int], records: Sequence[Stored]) -> Delivery:
        delivery = Delivery(topic, len(records), self._process.loop)
        by_partition: dict[int, list[Stored]] = {}
        for p, r in zip(where, records, strict=True):
            by_partition.setdefault(p, []).append(r)
        for p, part in by_partition.items():

            def done(error: str | None, n: int = len(part)) -> None:
                delivery.settle(n, n if error else 0, error)

            self._kafka.produce(self._process, topic, p, part, done)
        return delivery


def _one_key(key: bytes | None) -> Spans | None:
    if key is None:
        return None
    import numpy as np

    return Spans(np.frombuffer(key or b"\0", np.uint8), np.zeros(1, np.int64), np.array([len(key)], np.int64))


class _Message:
    def __init__(self, partition: int, record: Stored | None) -> None:
        self._partition = partition
        self._record = record

    def error(self) -> Any:
        return None if self._record is not None else KafkaError(KafkaError._PARTITION_EOF)

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return -1 if self._record is None else self._record.offset

    def key(self) -> bytes | None:
        assert self._record is not None
        return self._record.key

    def value(self) -> bytes | None:
        assert self._record is not None
        return self._record.value


class FakeConsumer:
    """As much of confluent_kafka's consumer as reading a topic from its beginning to its end takes."""

    def __init__(self, config: Any, **_: Any) -> None:
        self._kafka: FakeKafka = here()[1].kafka
        self._messages: list[_Message] = []

    def assign(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            log = self._kafka.topics[tp.topic][tp.partition]
            from_offset = max(tp.offset, 0)
            self._messages += [_Message(tp.partition, r) for r in log.records if r.offset >= from_offset]
            self._messages.append(_Message(tp.partition, None))

    def consume(self, n: int, timeout: float = 0.0) -> list[_Message]:
        found, self._messages = self._messages[:n], self._messages[n:]
        return found

    def get_watermark_offsets(self, tp: TopicPartition, **_: Any) -> tuple[int, int]:
        log = self._kafka.topics[tp.topic][tp.partition]
        return (log.records[0].offset if log.records else log.end), log.end

    def close(self) -> None:
        self._messages = []
