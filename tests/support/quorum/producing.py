"""A producer with a journal: when each numbered record was handed over, acknowledged, or given up, and what that means."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config


@dataclass
class Journal:
    """Record number → its time (monotonic seconds); a record that is in neither of the last two is still in flight."""

    sent: dict[int, float] = field(default_factory=dict)
    acknowledged: dict[int, float] = field(default_factory=dict)
    refused: dict[int, tuple[float, str]] = field(default_factory=dict)

    def acknowledged_between(self, begin: float, end: float) -> int:
        """Count acknowledgements in a time."""
        return sum(begin <= at < end for at in list(self.acknowledged.values()))

    def longest_gap(self, begin: float, end: float) -> float:
        """Return the longest time without an acknowledgement, in seconds."""
        times = [begin, *sorted(at for at in list(self.acknowledged.values()) if begin < at < end), end]
        return max(b - a for a, b in itertools.pairwise(times))

    def errors(self) -> Mapping[str, int]:
        """Count refusals by their names."""
        return Counter(name for _, name in self.refused.values())


class Writer:
    """Publishes numbered records at a rate, in turn to each partition, until stopped; a context manager.

    ``give_up_seconds`` is how long a record may wait for its acknowledgement.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        partitions: int,
        *,
        acks: str = "all",
        rate: float = 500.0,
        give_up_seconds: float = 120.0,
        **more: object,
    ) -> None:
        self._topic, self._partitions, self._rate = topic, partitions, rate
        self.journal = Journal()
        self._stopped = threading.Event()
        self._producer = Producer(
            librdkafka_config(kafka)
            | {
                "acks": acks,
                "enable.idempotence": acks == "all",
                "message.timeout.ms": int(give_up_seconds * 1000),
                "linger.ms": 2,
                "socket.timeout.ms": 10_000,  # as fluvial's publisher
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
            | more
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._stopped.is_set():
            due = int((time.monotonic() - begun) * self._rate)
            while number < due:
                self.journal.sent[number] = time.monotonic()
                try:
                    self._producer.produce(
                        self._topic,
                        b"%d" % number,
                        partition=number % self._partitions,
                        on_delivery=self._note(number),
                    )
                except KafkaException as e:  # after a fatal error, nothing can be published any more
                    self.journal.refused[number] = (time.monotonic(), e.args[0].name())
                number += 1
            self._producer.poll(0.002)
        if self._producer.flush(180):
            self._producer.purge()  # a producer that had a fatal error keeps what it will not send
            self._producer.flush(10)

    def _note(self, number: int):  # type: ignore[no-untyped-def]
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.journal.acknowledged[number] = time.monotonic()
            else:
                self.journal.refused[number] = (time.monotonic(), error.name())

        return delivered


@dataclass(frozen=True)
class Comparison:
    """A journal against the log: acknowledged records that are missing, records that are there twice, or out of order."""

    acknowledged: int
    logged: int
    missing: int
    repeated: int
    disordered: int

    def violations(self, *, once: bool) -> list[str]:
        """Say what a producer at acks=all must never see; with ``once`` also what it never sees while it gives up nothing."""
        counts = {"I1: acknowledged and not in the log": self.missing}
        if once:
            counts |= {"I1: in the log twice": self.repeated, "I5: out of order": self.disordered}
        return [f"{what}: {n} records" for what, n in counts.items() if n]


def compare(journal: Journal, log: Sequence[Sequence[bytes]]) -> Comparison:
    """Compare what was acknowledged with what is in the log now."""
    numbers = [[int(v) for v in values] for values in log]
    found = Counter(n for values in numbers for n in values)
    return Comparison(
        acknowledged=len(journal.acknowledged),
        logged=len(found),
        missing=len(journal.acknowledged.keys() - found.keys()),
        repeated=sum(n > 1 for n in found.values()),
        disordered=sum(a > b for values in numbers for a, b in itertools.pairwise(values)),
    )
