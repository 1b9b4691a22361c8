"""The ceiling: confluent-kafka's ``consume``, nothing decoded: ``measured_raw.py BROKERS TOPIC GROUP``."""

import sys

from confluent_kafka import Consumer, TopicPartition

AT_ONCE = 50_000


def main(brokers: str, topic: str, group: str) -> None:
    """Read the topic until killed."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "check.crcs": True,
            "fetch.message.max.bytes": 4 << 20,
            "fetch.max.bytes": 64 << 20,
            "queued.min.messages": 500_000,
            "queued.max.messages.kbytes": 256 << 10,
        }
    )
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    handled = 0
    while True:
        found = consumer.consume(AT_ONCE, timeout=0.05)
        if found:
            handled += len(found)
            print("at", handled, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
