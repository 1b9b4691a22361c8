"""The publisher on a real Kafka: everything acknowledged is there once and in order, everything else is reported."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from fluvial.errors import PublishError
from fluvial.records import Spans
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.murmur2 import partition_for
from fluvial.transport.publisher import OutRecord, Publisher
from support.transport import ends, fresh_topic

pytestmark = pytest.mark.integration


def spans(values: list[bytes | None]) -> Spans:
    """Return values as spans of one buffer."""
    lengths = np.array([-1 if v is None else len(v) for v in values], np.int64)
    starts = np.cumsum(lengths.clip(0)) - lengths.clip(0)
    return Spans(np.frombuffer(bytearray(b"".join(v or b"" for v in values) or b"|"), np.uint8), starts, lengths)


@contextmanager
def reader(kafka: KafkaSettings, topic: str, partitions: int) -> Iterator[Consumer]:
    """Give a consumer at the beginning of every partition."""
    consumer = Consumer(librdkafka_config(kafka) | {"group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    yield consumer
    consumer.close()


def everything(kafka: KafkaSettings, topic: str, partitions: int = 1) -> list[Message]:
    """Return all records, in offset order per partition."""
    total = sum(ends(kafka, topic, partitions))
    with reader(kafka, topic, partitions) as consumer:
        found: list[Message] = []
        while len(found) < total:
            found += consumer.consume(total - len(found), 30)
    return sorted(found, key=lambda m: (m.partition(), m.offset()))


async def test_what_is_published_is_there_once_in_order_and_where_java_puts_it(kafka: KafkaSettings) -> None:
    n, partitions = 30_000, 4
    keys = [f"sensor-{i % 50}".encode() for i in range(n)]
    values = [str(i).encode() for i in range(n)]
    with fresh_topic(kafka, partitions=partitions) as topic:
        async with Publisher(kafka, max_in_flight=5_000) as publisher:
            for a in range(0, n, 7_000):
                await publisher.publish(topic, spans(keys[a : a + 7_000]), spans(values[a : a + 7_000]))
        found = everything(kafka, topic, partitions)
    assert sorted(int(m.value()) for m in found) == list(range(n))
    expected = partition_for(spans(keys), partitions)
    assert all(m.partition() == expected[int(m.value())] for m in found)
    for p in range(partitions):
        order = [int(m.value()) for m in found if m.partition() == p]
        assert order == sorted(order)


async def test_nulls_partitions_and_timestamps_are_kept(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka, partitions=3) as topic:
        async with Publisher(kafka) as publisher:
            await (await publisher.publish(topic, spans([None, b"k"]), spans([b"v", None]), partition=1))
            times = np.array([1_700_000_000_000, 1_700_000_000_001], np.int64)
            await (await publisher.publish(topic, None, spans([b"a", b"b"]), partition=2, timestamps=times))
        found = everything(kafka, topic, 3)
    assert [(m.partition(), m.key(), m.value()) for m in found] == [
        (1, None, b"v"),
        (1, b"k", None),
        (2, None, b"a"),
        (2, None, b"b"),
    ]
    assert [m.timestamp()[1] for m in found[2:]] == times.tolist()


async def test_records_with_headers(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as topic:
        tick = OutRecord(None, None, (("fluvial-tick", b"1700000000000"),), partition=0, timestamp=5)
        async with Publisher(kafka) as publisher:
            await (await publisher.publish_records(topic, [tick, OutRecord(b"k", b"v")]))
        found = everything(kafka, topic)
    assert [(m.key(), m.value(), m.headers()) for m in found] == [
        (None, None, [("fluvial-tick", b"1700000000000")]),
        (b"k", b"v", None),
    ]
    assert found[0].timestamp()[1] == 5


async def test_nothing_published_is_delivered_at_once(kafka: KafkaSettings) -> None:
    async with Publisher(kafka) as publisher:
        await (await publisher.publish("test-that-nobody-made", None, spans([])))


async def test_records_that_kafka_refuses_are_reported_to_whoever_awaits_them(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as topic:
        async with Publisher(kafka) as publisher:
            delivery = await publisher.publish(topic, None, spans([b"ok", b"x" * 9_000_000, b"ok too"]))
            with pytest.raises(PublishError, match="1 of 3 records"):
                await delivery
            await publisher.flush()
        assert [m.value() for m in everything(kafka, topic)] == [b"ok", b"ok too"]


async def test_a_failure_that_nobody_awaited_is_raised_by_flush_and_on_leaving(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as topic:
        publisher = Publisher(kafka)
        with pytest.raises(PublishError, match="1 of 1 records"):
            async with publisher:
                await publisher.publish(topic, None, spans([b"x" * 9_000_000]))
                with pytest.raises(PublishError, match="1 of 1 records"):
                    await publisher.flush()
                await publisher.publish(topic, None, spans([b"x" * 9_000_000]))
                await asyncio.sleep(0)


async def test_unreachable_brokers_are_reported_and_leaving_does_not_hang() -> None:
    nowhere = KafkaSettings(brokers="127.0.0.1:1")
    publisher = Publisher(nowhere)
    with pytest.raises(asyncio.CancelledError):
        async with publisher:
            delivery = await publisher.publish("topic", None, spans([b"1"]))
            raise asyncio.CancelledError
    with pytest.raises(PublishError, match="1 of 1 records"):
        await delivery


async def test_after_a_fatal_error_nothing_more_is_taken(kafka: KafkaSettings) -> None:
    class Fatal:
        """As librdkafka reports a fenced or corrupted producer."""

        def fatal(self) -> bool:
            return True

        def str(self) -> str:
            return "sequence numbers are out of order"

    async with Publisher(kafka) as publisher:
        publisher._config["error_cb"](Fatal())
        with pytest.raises(PublishError, match="fatal error: sequence numbers"):
            await publisher.publish("topic", None, spans([b"1"]))


async def test_publishing_waits_for_room(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as topic:
        async with Publisher(kafka, max_in_flight=1_000) as publisher:
            deliveries = []
            for _ in range(20):
                deliveries.append(await publisher.publish(topic, None, spans([b"x"] * 1_000)))
                assert publisher.in_flight <= 1_000
            for delivery in deliveries:
                await delivery
        assert ends(kafka, topic) == [20_000]
