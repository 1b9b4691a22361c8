"""What the trials ask three brokers: who leads, who is in sync, which controller is active; and what a log holds."""

import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.cluster import LocalCluster
from fluvial.cluster.state import read_state
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config

Found = TypeVar("Found")


def within(seconds: float, look: Callable[[], Found | None], every: float = 0.05) -> Found:
    """Look until something is found."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"not within {seconds} s: {look}"
        time.sleep(every)
    return found


@dataclass(frozen=True)
class Controller:
    """The active controller: its node id and the epoch of its election."""

    node: int
    epoch: int


class Quorum:
    """The KRaft quorum of a local cluster, asked controller by controller: only the active one answers without error."""

    def __init__(self, cluster: LocalCluster) -> None:
        state = read_state(cluster.state_file)
        assert state is not None
        ports = {n: s.ports for n, s in state.servers.items() if n.startswith("kafka-")}
        self._ports = {int(name[-1]): p["controller"] for name, p in ports.items()}

    def active(self) -> Controller | None:
        """Return the active controller; of several that believe it of themselves, the one of the latest epoch."""
        found = [c for node, port in self._ports.items() if (c := _describe(node, port)) is not None]
        return max(found, key=lambda c: c.epoch, default=None)

    def wait(self, seconds: float = 30.0, *, after_epoch: int = -1) -> Controller:
        """Wait for an active controller of a later epoch, looking every 5 ms."""

        def look() -> Controller | None:
            found = self.active()
            return found if found is not None and found.epoch > after_epoch else None

        return within(seconds, look, 0.005)


def _describe(node: int, port: int) -> Controller | None:
    """Send DescribeQuorum (key 55, version 0, flexible) of ``__cluster_metadata-0``."""
    topic = b"__cluster_metadata"
    header = struct.pack(">hhih", 55, 0, 1, 1) + b"q" + b"\0"
    body = b"\x02" + bytes([len(topic) + 1]) + topic + b"\x02" + struct.pack(">i", 0) + b"\0" + b"\0" + b"\0"
    request = header + body
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as s:
            s.settimeout(0.5)
            s.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _exactly(s, 4))
            answer = _exactly(s, size)
    except OSError:
        return None
    at = 4 + 1  # correlation id, no tags
    (error,) = struct.unpack_from(">h", answer, at)
    if error:
        return None
    at += 2 + 1 + 1 + len(topic) + 1  # error; one topic, its name; one partition
    _, error, leader, epoch = struct.unpack_from(">ihii", answer, at)
    return Controller(leader, epoch) if not error and leader == node else None


def _exactly(s: socket.socket, n: int) -> bytes:
    found = b""
    while len(found) < n:
        part = s.recv(n - len(found))
        if not part:
            raise ConnectionError
        found += part
    return found


@contextmanager
def placed_topic(kafka: KafkaSettings, replicas: list[list[int]], **config: str) -> Iterator[str]:
    """Create a topic whose partitions have these replicas, the first one preferred, and delete it afterwards."""
    name = f"trial-{uuid.uuid4().hex[:12]}"
    admin = AdminClient(librdkafka_config(kafka))
    topic = NewTopic(name, len(replicas), replica_assignment=replicas, config={"min.insync.replicas": "2"} | config)
    admin.create_topics([topic])[name].result(30)
    within(30, lambda: leaders(kafka, name) == [r[0] for r in replicas] or None)
    try:
        yield name
    finally:
        admin.delete_topics([name])[name].result(60)


def leaders(kafka: KafkaSettings, topic: str) -> list[int]:
    """Return the leader of each partition, −1 where there is none."""
    return [p.leader for _, p in sorted(_partitions(kafka, topic).items())]


def in_sync(kafka: KafkaSettings, topic: str) -> list[list[int]]:
    """Return each partition's in-sync replicas."""
    return [sorted(p.isrs) for _, p in sorted(_partitions(kafka, topic).items())]


def _partitions(kafka: KafkaSettings, topic: str) -> Mapping[int, object]:
    admin = AdminClient(librdkafka_config(kafka) | {"log_level": 0})
    try:
        found = admin.list_topics(topic, timeout=5).topics[topic]
    except KafkaException:
        return {}
    return {} if found.error else found.partitions


def whole(kafka: KafkaSettings, topic: str, brokers: int = 3) -> bool:
    """Say whether every replica is in sync."""
    found = in_sync(kafka, topic)
    return bool(found) and all(len(r) == brokers for r in found)


def read_log(kafka: KafkaSettings, topic: str, partitions: int) -> list[list[bytes]]:
    """Return the values of each partition, in offset order."""
    config = librdkafka_config(kafka) | {
        "group.id": "trial",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "check.crcs": True,
    }
    consumer, found = Consumer(config), []
    try:
        for partition in range(partitions):
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            values: list[bytes] = []
            next_offset, ended = 0, False
            while not ended:
                for m in consumer.consume(5_000, timeout=0.2):
                    if m.error() is None:
                        assert (m.partition(), m.offset() >= next_offset) == (partition, True), (
                            m.partition(),
                            m.offset(),
                        )
                        next_offset = m.offset() + 1
                        values.append(m.value())
                    elif m.error().code() == KafkaError._PARTITION_EOF:
                        ended = True
                    else:
                        raise KafkaException(m.error())
            found.append(values)
    finally:
        consumer.close()
    return found


def pid_of(cluster: LocalCluster, name: str) -> int:
    """Return a server's process id."""
    pid = next(s.pid for s in cluster.status() if s.name == name)
    assert pid is not None
    return pid


def log_of(cluster: LocalCluster, name: str) -> str:
    """Return what a server has logged since its start."""
    return Path(cluster.log(name)).read_text(errors="replace")
