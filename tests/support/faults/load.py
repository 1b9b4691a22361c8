"""A load from a seed: readings and posts out of order, some twice, some late, some poison, ticks between them."""

import random
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fluvial.producers.ticks import keyed_tick, partition_tick
from fluvial.schemas.avro import DatumWriter
from fluvial.transport.publisher import OutRecord

BASE_MS = 1_704_067_200_000  # 2024-01-01, a Monday
MINUTE_MS = 60_000
DAY_MS = 86_400_000
# So many steps come at once: enough for the first rows.
AT_ONCE = 8
UNKNOWN_SCHEMA = 2_000_000_000


@dataclass(frozen=True)
class Shape:
    """How much there is of what: ``events`` in all, published over about ``seconds``; the others are shares of one.

    ``good`` is the share after which everything is poison.
    """

    events: int = 6_000
    seconds: float = 8.0
    keys: int = 12
    event_minutes: float = 20.0
    disorder_seconds: float = 40.0
    duplicates: float = 0.03
    late: float = 0.01
    poison: float = 0.01
    ticks: float = 0.002
    times_sent: int = 1
    good: float = 1.0


@dataclass(frozen=True)
class Chunk:
    """Records of one topic, to be published ``at`` seconds after the start."""

    at: float
    topic: str
    records: Sequence[OutRecord]


class Load:
    """What a seed says is published, in order."""

    def __init__(
        self,
        rng: random.Random,
        shape: Shape,
        partitions: int,
        readings: tuple[str, DatumWriter],
        posts: tuple[str, DatumWriter] | None,
    ) -> None:
        self._rng = rng
        self.shape = shape
        self._partitions = partitions
        self._readings = readings
        self._posts = posts
        self._spoiled = False

    def chunks(self) -> Iterator[Chunk]:
        """Yield everything in chunks of a tenth of a second, at last (mostly) the ticks that close all windows."""
        s, rng = self.shape, self._rng
        steps = max(1, int(s.seconds * 10))
        share = 0.3 if self._posts else 0.0
        posts_each, readings_each = round(s.events * share / steps), round(s.events * (1 - share) / steps)
        closing = rng.random() < 0.7
        sequences = [0] * s.keys
        for step in range(steps):
            now = BASE_MS + int(s.event_minutes * MINUTE_MS * (step + 1) / steps)
            self._spoiled = step >= s.good * steps
            at = step / 10 if step >= AT_ONCE else 0.0
            topic, writer = self._readings
            records = [r for _ in range(readings_each) for r in self._reading(writer, now, sequences)]
            yield Chunk(at, topic, self._with_ticks(records, now) * s.times_sent)
            if self._posts:
                topic, writer = self._posts
                records = [r for n in range(posts_each) for r in self._post(writer, now, step * posts_each + n)]
                yield Chunk(at, topic, self._with_ticks(records, now) * s.times_sent)
        if closing:
            end = BASE_MS + int(s.event_minutes * MINUTE_MS) + 2 * DAY_MS
            for topic in [self._readings[0], *([self._posts[0]] if self._posts else [])]:
                yield Chunk(s.seconds, topic, [partition_tick(p, end) for p in range(self._partitions)])

    def _with_ticks(self, records: list[OutRecord], now: int) -> list[OutRecord]:
        rng, behind = self._rng, int(2 * self.shape.disorder_seconds * 1000)
        for _ in range(len(records)):
            if rng.random() < self.shape.ticks:
                at = rng.randrange(len(records) + 1)
                records.insert(at, partition_tick(rng.randrange(self._partitions), now - behind))
        return records

    def _reading(self, writer: DatumWriter, now: int, sequences: list[int]) -> list[OutRecord]:
        rng, s = self._rng, self.shape
        i = rng.randrange(s.keys)
        sensor = f"sensor-{i:03d}"
        sequences[i] += 1
        event = {
            "sensor_id": sensor,
            "site": "",
            "metric": rng.choice(("t", "h")),
            "event_time": self._time(now),
            "value": rng.gauss(20, 5),
            "unit": None,
            "sequence": sequences[i] if rng.random() < 0.9 else None,
        }
        if rng.random() < 0.001:
            return [keyed_tick(sensor.encode(), now)]
        return self._sent(sensor.encode(), event, writer, "value")

    def _post(self, writer: DatumWriter, now: int, n: int) -> list[OutRecord]:
        rng = self._rng
        author = f"author-{min(int(rng.expovariate(0.2)), 40)}"
        tags = [f"tag-{min(int(rng.expovariate(0.3)), 15)}" for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        event = {
            "post_id": f"post-{n}",
            "author_id": author,
            "network": rng.choice(("a", "b")),
            "event_time": self._time(now),
            "text": "text",
            "language": None,
            "hashtags": tags,
            "reply_to": None,
        }
        return self._sent(author.encode(), event, writer, "event_time")

    def _time(self, now: int) -> int:
        rng, s = self._rng, self.shape
        if rng.random() < s.late:
            return now - rng.randrange(5 * MINUTE_MS, 30 * MINUTE_MS)
        return now - int(rng.random() ** 2 * s.disorder_seconds * 1000)

    def _sent(self, key: bytes, event: dict[str, Any], writer: DatumWriter, number: str) -> list[OutRecord]:
        rng, s = self._rng, self.shape
        if self._spoiled or rng.random() < s.poison:
            return [OutRecord(key, poison(rng, event, writer, number))]
        record = OutRecord(key, writer.write(event))
        return [record, record] if rng.random() < s.duplicates else [record]


def poison(rng: random.Random, event: dict[str, Any], writer: DatumWriter, number: str) -> bytes | None:
    """Return a value that no worker can use, one of many kinds."""
    good = writer.write(event)
    kind = rng.randrange(9)
    if kind == 0:
        return rng.randbytes(rng.randrange(0, 60))
    if kind == 1:
        return good[: rng.randrange(5, len(good))]
    if kind == 2:
        return good + b"\0"
    if kind == 3:
        return b"\0" + struct.pack(">I", UNKNOWN_SCHEMA) + good[5:]
    if kind == 4:
        return None
    if kind == 5:
        # A block count or length of 2⁶²: what a careless decoder would reserve memory for.
        return good[:5] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" * 3
    if kind == 6:
        # A negative length.
        return good[:5] + b"\x01" * 40
    if kind == 7:
        return good[:5] + b"\x80" * 11 + good[5:]
    spoiled = {"value": float("nan")} if number == "value" else {}
    ahead = {"event_time": int(time.time() * 1000) + 10 * DAY_MS}
    return writer.write(event | (spoiled or ahead))
