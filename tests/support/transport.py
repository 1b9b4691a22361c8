"""What the transport's tests need of a real Kafka: topics, records of every kind, committed offsets, running apps."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.records import RecordColumns
from fluvial.settings import KafkaSettings
from fluvial.transport.app import BatchApp, BatchTopic, batch_app
from fluvial.transport.connection import librdkafka_config


@contextmanager
def fresh_topic(kafka: KafkaSettings, partitions: int = 1, **config: str) -> Iterator[str]:
    """Create a topic of a unique name, and delete it afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    admin = AdminClient(librdkafka_config(kafka))
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
    deadline = time.monotonic() + 30
    while name not in admin.list_topics(timeout=30).topics:  # the controller knows it first
        assert time.monotonic() < deadline, f"{name} does not appear"
        time.sleep(0.02)
    try:
        yield name
    finally:
        admin.delete_topics([name])[name].result(30)


def produce(
    kafka: KafkaSettings, name: str, values: Sequence[bytes | None], *, partition: int = 0, codec: str = "none"
) -> None:
    """Produce values (keys are their numbers) to one partition and wait for the acknowledgements."""
    producer = Producer(librdkafka_config(kafka) | {"compression.type": codec, "linger.ms": 5})
    for i, value in enumerate(values):
        producer.produce(name, value, str(i).encode(), partition=partition)
    assert producer.flush(30) == 0


@contextmanager
def transaction(kafka: KafkaSettings, *, commit: bool) -> Iterator[Producer]:
    """Give a producer inside a transaction that is then committed or aborted."""
    producer = Producer(librdkafka_config(kafka) | {"transactional.id": uuid.uuid4().hex, "linger.ms": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    yield producer
    assert producer.flush(30) == 0
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


Answer = TypeVar("Answer")

# What a broker says while a coordinator or a leader moves; librdkafka does not mark all of them as retriable.
_MOVING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
}


def _insisting(ask: Callable[[], Answer], seconds: float = 30.0) -> Answer:
    """Ask again while the answer is that something is on the move."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KafkaException as e:
            error = e.args[0]
            if not (error.retriable() or error.code() in _MOVING) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def ends(kafka: KafkaSettings, name: str, partitions: int = 1) -> list[int]:
    """Return the end offset of each partition."""
    consumer = Consumer(librdkafka_config(kafka) | {"group.id": "ends"})

    def ask() -> list[int]:
        return [consumer.get_watermark_offsets(TopicPartition(name, p), 30)[1] for p in range(partitions)]

    try:
        return _insisting(ask)
    finally:
        consumer.close()


def committed(kafka: KafkaSettings, group: str, name: str, partitions: int = 1) -> list[int]:
    """Return the group's committed offset of each partition, −1001 where there is none."""
    consumer = Consumer(librdkafka_config(kafka) | {"group.id": group})
    wanted = [TopicPartition(name, p) for p in range(partitions)]
    try:
        return [tp.offset for tp in _insisting(lambda: consumer.committed(wanted, 30))]
    finally:
        consumer.close()


def group_id() -> str:
    """Return a unique consumer group."""
    return f"test-{uuid.uuid4().hex[:12]}"


def app_for(kafka: KafkaSettings, name: str, group: str, *, partitions: int | None = None, **options: Any) -> BatchApp:
    """Return an app that reads one batch topic, with a quick session."""
    app = batch_app(group, kafka, topics=[BatchTopic(name, partitions)], **options)
    app.conf.broker_session_timeout = 6.0
    app.conf.broker_heartbeat_interval = 1.0
    app.conf.broker_commit_interval = 0.2
    return app


def rows(columns: RecordColumns) -> list[tuple[int, bytes | None]]:
    """Return (offset, value) of every record."""
    return [(int(columns.offset[i]), columns.value.bytes_at(i)) for i in range(len(columns))]


async def eventually(check: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until ``check`` is true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(app: BatchApp) -> AsyncIterator[asyncio.Task[None]]:
    """Run the app; leaving stops it gracefully. A failure of the app is raised there unless its task was awaited."""
    task = asyncio.ensure_future(app.run())
    try:
        yield task
    finally:
        if not task.done():
            await app.stop()
        await asyncio.wait([task], timeout=60)
    task.result()


async def failure_of(app: BatchApp, seconds: float = 40.0) -> BaseException:
    """Run the app until it fails and return what it failed of."""
    try:
        await asyncio.wait_for(app.run(), seconds)
    except Exception as e:
        return e
    raise AssertionError("the app stopped without an error")


Agent = Callable[[Any], Awaitable[None]]
