"""Kafka in memory: logs with offsets that may have gaps, requests that are late, lost or unanswered, compaction.

What is stored is what a broker stores; who may read and commit what is `groups`. Everything random is drawn from the
run's generator, everything late waits on the virtual clock, outside of every process.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fluvial.records import RecordColumns, Spans
from fluvial.transport.murmur2 import NO_KEY, partition_for
from support.simulated.loop import OUTSIDE, Process, VirtualLoop

BASE_MS = 1_760_054_400_000  # a UTC midnight; the virtual clock's zero
Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """One record in a log; ``producer`` is for the checks, no reader of the product sees it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    producer: str = ""


@dataclass(slots=True)
class Log:
    """A partition."""

    records: list[Stored] = field(default_factory=list)
    end: int = 0


@dataclass(frozen=True, slots=True)
class Weather:
    """How Kafka behaves: seconds and probabilities."""

    latency: tuple[float, float] = (0.002, 0.04)
    offset_gap: float = 0.0
    delivery_lost: float = 0.0
    delivery_unanswered: float = 0.0


class FakeKafka:
    """Topics by name, each a list of logs."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, weather: Weather) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = weather
        self.topics: dict[str, list[Log]] = {}
        self.stalled_until = 0.0
        self._last: dict[tuple[str, str, int], float] = {}
        self._cut: set[tuple[str, str, int]] = set()
        self._listeners: dict[str, list[tuple[Process, Callable[[], None]]]] = defaultdict(list)

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic."""
        self.topics[topic] = [Log() for _ in range(partitions)]

    @property
    def now_ms(self) -> int:
        """The brokers' clock."""
        return BASE_MS + int(self.loop.time() * 1000)

    def latency(self) -> float:
        """Draw how long a message takes one way."""
        return self.rng.uniform(*self.weather.latency)

    def listen(self, topic: str, process: Process, arrived: Callable[[], None]) -> None:
        """Call ``arrived`` in the process when the topic has grown."""
        self._listeners[topic].append((process, arrived))

    def append(self, topic: str, partition: int, records: Sequence[Stored], producer: str) -> None:
        """Store records at once; their offsets are given here."""
        log = self.topics[topic][partition]
        if self.rng.random() < self.weather.offset_gap:
            log.end += self.rng.randint(1, 3)  # a control batch, an aborted transaction
        for r in records:
            at = r.timestamp or self.now_ms
            log.records.append(Stored(log.end, at, r.key, r.value, r.headers, producer))
            log.end += 1
        self._listeners[topic] = [(p, f) for p, f in self._listeners[topic] if p.alive]
        for process, arrived in self._listeners[topic]:
            self.loop.call_later(self.latency(), arrived, context=process.context)

    def produce(
        self,
        process: Process,
        topic: str,
        partition: int,
        records: Sequence[Stored],
        done: Callable[[str | None], None],
    ) -> None:
        """Send records of one partition, which arrive in the order of sending; ``done`` hears of it in the process.

        What a process had sent when it was killed arrives up to some point, and not from there on.
        """
        link = (process.name, topic, partition)
        at = max(self.loop.time() + self.latency(), self.stalled_until, self._last.get(link, 0.0)) + 1e-6
        self._last[link] = at
        fate = self.rng.random()

        def arrive() -> None:
            if not process.alive and (link in self._cut or self.rng.random() < 0.5):
                self._cut.add(link)
                return
            if fate < self.weather.delivery_lost:
                answer("timed out", self.rng.uniform(4.0, 12.0))
                return
            self.append(topic, partition, records, process.name)
            lost = fate < self.weather.delivery_lost + self.weather.delivery_unanswered
            answer("timed out, possibly persisted" if lost else None)

        def answer(error: str | None, waited: float = 0.0) -> None:
            self.loop.call_later(waited + self.latency(), done, error, context=process.context)

        self.loop.call_at(at, arrive, context=OUTSIDE)

    def partitions_of(self, topic: str, keys: Spans | None, n: int) -> list[int]:
        """Return where a Java client would send records of these keys; those without go anywhere."""
        count = len(self.topics[topic])
        if keys is None:
            return [self.rng.randrange(count) for _ in range(n)]
        found = partition_for(keys, count).tolist()
        return [self.rng.randrange(count) if p == NO_KEY else p for p in found]

    def fetch(self, topic: str, partition: int, offset: int, most: int) -> tuple[list[Stored], int]:
        """Return at most so many records from an offset on, and the offset after what they cover."""
        log = self.topics[topic][partition]
        first = next((i for i, r in enumerate(log.records) if r.offset >= offset), len(log.records))
        found = log.records[first : first + most]
        rest = first + most < len(log.records)
        return found, (found[-1].offset + 1 if rest else log.end)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return a partition's first offset and its end."""
        return 0, self.topics[topic][partition].end

    def compact(self, topic: str) -> None:
        """Keep the last record of every key, as a compacted topic comes to do."""
        for log in self.topics[topic]:
            last = {r.key: r.offset for r in log.records}
            log.records = [r for r in log.records if last[r.key] == r.offset]


def columns_of(topic: str, partition: int, records: Sequence[Stored], next_offset: int) -> RecordColumns:
    """Return records as the transport's parser does, their headers in Kafka's bytes."""
    buffer = bytearray(b"\0")
    places: list[tuple[int, int, int, int, int]] = []
    for r in records:
        key = len(buffer)
        buffer += r.key or b""
        value = len(buffer)
        buffer += r.value or b""
        places.append((key, _length(r.key), value, _length(r.value), len(buffer)))
        buffer += _varint(len(r.headers))
        for name, held in r.headers:
            buffer += _varint(len(name)) + name.encode() + _varint(len(held)) + held
    data = np.frombuffer(bytes(buffer), np.uint8)
    at = np.array(places, np.int64).reshape(len(places), 5).T.copy()
    return RecordColumns(
        topic,
        partition,
        np.array([r.offset for r in records], np.int64),
        np.array([r.timestamp for r in records], np.int64),
        Spans(data, at[0], at[1]),
        Spans(data, at[2], at[3]),
        at[4],
        next_offset,
    )


def _length(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _varint(n: int) -> bytes:
    n <<= 1  # zigzag of a number that is not negative
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)
