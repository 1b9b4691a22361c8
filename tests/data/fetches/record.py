"""Record real fetch responses: ``python tests/data/fetches/record.py HOST:PORT`` (a broker of the local cluster).

Each case becomes NAME.bin, the record set as the broker sent it, and NAME.json: where the fetch began, the response's
aborted transactions, and what librdkafka reads there (an implementation that shares nothing with ours).
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition as Partition
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).parent
READ_COMMITTED = 1


class Recorder:
    """A broker to record from."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self.admin = AdminClient({"bootstrap.servers": brokers})
        self.topics: list[str] = []

    def topic(self, **config: str) -> str:
        """Create a topic of one partition."""
        name = f"record-{uuid.uuid4().hex[:8]}"
        self.admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(30)
        self.topics.append(name)
        return name

    def producer(self, **config: Any) -> Producer:
        """Return a librdkafka producer."""
        return Producer({"bootstrap.servers": self.brokers, "linger.ms": 10, **config})

    def save(self, case: str, name: str, *, offset: int = 0, max_bytes: int = 1 << 20) -> None:
        """Fetch from the topic and save the case."""
        raw, aborted = asyncio.run(self._fetch(name, offset, max_bytes))
        expected = self._read(name, offset)
        (HERE / f"{case}.bin").write_bytes(raw)
        lines = ",\n".join(json.dumps(record) for record in expected)
        text = f'{{"offset": {offset}, "aborted": {json.dumps(aborted)}, "records": [\n{lines}\n]}}\n'
        (HERE / f"{case}.json").write_text(text)
        print(f"{case}: {len(raw)} bytes, {len(expected)} records, aborted {aborted}")

    async def _fetch(self, name: str, offset: int, max_bytes: int) -> tuple[bytes, list[Any]]:
        client = AIOKafkaClient(bootstrap_servers=self.brokers)
        await client.bootstrap()
        await client.set_topics([name])
        try:
            node = client.cluster.leader_for_partition(Partition(name, 0))
            request = FetchRequest(500, 1, 1 << 24, READ_COMMITTED, [(name, [(0, offset, max_bytes)])], rack_id="")
            response = await client.send(node, request)
            [(_, [(_, error, *rest)])] = response.topics
            assert error == 0, error
            aborted = rest[3] if response.API_VERSION >= 11 else rest[-2]
            return bytes(rest[-1]), [list(pair) for pair in aborted or []]
        finally:
            await client.close()

    def _read(self, name: str, offset: int) -> list[dict[str, Any]]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": "record",
                "isolation.level": "read_committed",
                "check.crcs": True,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(name, 0, offset if offset else OFFSET_BEGINNING)])
        found = []
        while True:
            message = consumer.poll(30)
            assert message is not None
            if message.error() is not None:
                break  # the partition's end
            found.append(
                {
                    "offset": message.offset(),
                    "timestamp": message.timestamp()[1],
                    "key": _hex(message.key()),
                    "value": _hex(message.value()),
                    "headers": [[k, _hex(v)] for k, v in message.headers() or []],
                }
            )
        consumer.close()
        return found


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def varied(i: int) -> dict[str, Any]:
    """Return a record of changing shape: keys, nulls, empty values, headers."""
    tick = [("fluvial-tick", str(1_700_000_000_000 + i).encode())]
    return {
        "key": None if i % 7 == 0 else f"key-{i % 5}".encode(),
        "value": None if i % 11 == 0 else b"" if i % 13 == 0 else (f"value {i} " * (i % 9 + 1)).encode(),
        "headers": tick if i % 11 == 0 else [("a", b"1"), ("b", None)][: i % 3],
        "timestamp": 1_700_000_000_000 + i * 17 - (i % 4) * 1000,
    }


def codecs(r: Recorder) -> None:
    """Every codec, by librdkafka (raw snappy)."""
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        name = r.topic()
        p = r.producer(**{"compression.type": codec})
        for i in range(150):
            p.produce(name, partition=0, **varied(i))
            if i % 50 == 49:
                p.flush()
        r.save(codec, name)


def xerial(r: Recorder) -> None:
    """snappy-java's framing, by aiokafka."""
    name = r.topic()

    async def produce() -> None:
        async with AIOKafkaProducer(bootstrap_servers=r.brokers, compression_type="snappy", linger_ms=10) as p:
            sent = [await p.send(name, f"value {i}".encode() * 20, partition=0) for i in range(100)]
            await asyncio.gather(*sent)

    asyncio.run(produce())
    r.save("snappy-xerial", name)


def log_append_time(r: Recorder) -> None:
    """The broker's timestamps."""
    name = r.topic(**{"message.timestamp.type": "LogAppendTime"})
    p = r.producer(**{"compression.type": "lz4"})
    for i in range(20):
        p.produce(name, partition=0, **varied(i))
    p.flush()
    r.save("log-append-time", name)


def transactions(r: Recorder) -> None:
    """Two producers' interleaved transactions, committed and aborted, plain records between, a marker at the end."""
    name = r.topic()
    a, b = (r.producer(**{"transactional.id": uuid.uuid4().hex, "linger.ms": 0}) for _ in range(2))
    plain = r.producer()
    for p in (a, b):
        p.init_transactions()
    for round_ in range(4):
        a.begin_transaction()
        b.begin_transaction()
        for i in range(3):
            for label, p in (("a", a), ("b", b), ("plain", plain)):
                p.produce(name, f"{label} {round_} {i}".encode(), partition=0)
                p.flush()
        (a.commit_transaction if round_ % 2 else a.abort_transaction)()
        (b.abort_transaction if round_ % 3 else b.commit_transaction)()
    r.save("transactions", name)
    r.save("transactions-from-the-middle", name, offset=14)


def middle(r: Recorder) -> None:
    """A fetch offset inside a batch, and a response that ends inside one."""
    name = r.topic()
    p = r.producer(**{"compression.type": "zstd", "linger.ms": 50})
    for i in range(90):
        p.produce(name, partition=0, **varied(i))
        if i % 30 == 29:
            p.flush()
    r.save("inside-a-batch", name, offset=41)
    name = r.topic()
    p = r.producer(**{"batch.num.messages": 20})
    for _ in range(6):
        for i in range(20):
            p.produce(name, f"{i}".encode() * 20, partition=0)
        p.flush()
    r.save("cut-off", name, max_bytes=3000)


def compacted(r: Recorder) -> None:
    """Gaps inside and between batches, and batches that compaction left empty."""
    name = r.topic(
        **{
            "cleanup.policy": "compact",
            "segment.bytes": "1048576",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.0",
            "max.compaction.lag.ms": "100",
            "delete.retention.ms": "0",
        }
    )
    p = r.producer(**{"enable.idempotence": True})
    total = 0
    for _ in range(8):
        for _ in range(25):
            p.produce(name, f"{total}".encode(), key=f"key-{total * total % 97}".encode(), partition=0)
            total += 1
        p.flush()
        time.sleep(0.3)
    deadline = time.monotonic() + 120
    while len(r._read(name, 0)) > 100 and time.monotonic() < deadline:
        time.sleep(2)
        p.produce(name, b"last", key=b"last", partition=0)
        p.flush()
    r.save("compacted", name)


CASES: tuple[Callable[[Recorder], None], ...] = (codecs, xerial, log_append_time, transactions, middle, compacted)

if __name__ == "__main__":
    recorder = Recorder(sys.argv[1])
    for case in CASES:
        if len(sys.argv) < 3 or case.__name__ in sys.argv[2:]:
            case(recorder)
    for deleted in recorder.admin.delete_topics(recorder.topics).values():
        deleted.result(30)
