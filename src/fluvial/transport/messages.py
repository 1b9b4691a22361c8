"""Whole small topics, message by message, to their present ends: dead letters, marks, cursors."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from fluvial.errors import TransportError
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config

SILENCE_SECONDS = 30.0

Bounds = dict[tuple[str, int], int]


def read_to_end(
    kafka: KafkaSettings, topic: str, partitions: int, upto: Bounds | None = None, seen: Bounds | None = None
) -> Iterator[Message]:
    """Yield the committed records of a topic up to its present end. Blocking; joins no group.

    Notes in ``seen`` where each partition ended; given as ``upto`` later, nothing beyond it is read.

    Raises:
        TransportError: Kafka does not answer, or refuses.
    """
    # The end of a partition is told by an event of its own: transaction markers make offsets that no record has.
    config = librdkafka_config(kafka) | {
        "group.id": "fluvial-reader",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        # The end is told by an empty answer, for which the broker waits so long.
        "fetch.wait.max.ms": 20,
    }
    consumer = Consumer(config)
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        unfinished = set(range(partitions))
        heard = time.monotonic()
        while unfinished:
            messages = consumer.consume(1000, timeout=0.05)
            heard = time.monotonic() if messages else heard
            if time.monotonic() - heard > SILENCE_SECONDS:
                told = f"{topic} did not answer for {SILENCE_SECONDS:.0f} s"
                raise TransportError(told, hint="is Kafka up? `fluvial status`")
            for m in messages:
                error = m.error()
                at = (topic, m.partition() or 0)
                if error is None:
                    if upto is None or (m.offset() or 0) < upto.get(at, 0):
                        yield m
                    else:
                        unfinished.discard(at[1])
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(at[1])
                    if seen is not None:
                        seen[at] = m.offset() or 0
                elif error.fatal() or not error.retriable():
                    raise TransportError(f"cannot read {topic}: {error.str()}", hint="see `fluvial status`")
    finally:
        consumer.close()
