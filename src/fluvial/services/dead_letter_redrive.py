"""Sending dead letters again, and marking what was done about them: both in one transaction, so each or neither.

The transactional id is the same for every redrive and discard: a second one ends the first, whose open transaction is
aborted before the marks are read. What is committed is therefore marked, and nothing that is marked is sent again.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from fluvial import failpoints
from fluvial.schemas.topics import HANDLED_TOPIC
from fluvial.services.dead_letter_log import DeadLetterLog, mark_value
from fluvial.services.dead_letter_topics import QUIET, TopicFacts
from fluvial.services.dead_letters import (
    LEFT_OUT,
    DeadLetterError,
    Distinct,
    Letter,
    Mark,
    Summary,
    Wanted,
    in_batches,
    mark_key,
    provenance,
    state_of,
)
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.messages import Bounds
from fluvial.transport.publisher import MAX_RECORD_BYTES

log = logging.getLogger(__name__)

TRANSACTIONAL_ID = "fluvial-dead-letters"
TRANSACTION_SECONDS = 20.0
BATCH = 500
T = TypeVar("T")
OPEN: frozenset[str] = frozenset({"open", "failed again"})


@dataclass(slots=True)
class Outcome:
    """What a redrive or discard did (or would do). Each dead letter that is meant counts once.

    ``failing`` are left because they would fail again: by stage and error, how many and an example of the reason;
    ``exhausted`` because they have been redriven often enough; ``refused`` (place: why) because Kafka does not take
    them.
    """

    handled: int = 0
    exhausted: int = 0
    failing: dict[str, tuple[int, str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many stay as they were."""
        return self.exhausted + sum(count for count, _ in self.failing.values()) + len(self.refused)

    @property
    def meant(self) -> int:
        """How many there are."""
        return self.handled + self.left


class Checks(Protocol):
    """What tells whether letters of one topic would fail again; see `dead_letter_check.Check`."""

    def failures(self, letters: Sequence[Letter]) -> Sequence[str | None]: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Which of the dead letters that are meant may be sent. ``check`` None sends also what would fail again."""

    max_attempts: int
    check: Checks | None


def survey(log: DeadLetterLog, topics: Mapping[str, int], wanted: Wanted, summary: Summary) -> int:
    """Add the wanted dead letters to a summary; return how many repeats there were.

    Raises:
        DeadLetterError, RegistryUnavailableError: Kafka or the registry does not answer.
    """
    marks = log.marks(topics)
    distinct = Distinct()
    for letter in log.letters(topics):
        state = state_of(letter, marks)
        if distinct(letter) and wanted.takes(letter, state):
            summary.add(letter, state)
    return distinct.repeats


def pending(
    log: DeadLetterLog,
    topics: Mapping[str, int],
    wanted: Wanted,
    *,
    upto: Bounds | None = None,
    seen: Bounds | None = None,
) -> Iterator[Letter]:
    """Yield the wanted dead letters that are open, once each, by the marks as they are now.

    A first pass notes in ``seen`` where it ended; a second one goes ``upto`` there: what fails again meanwhile is not
    sent again.
    """
    marks = log.marks(topics)
    distinct = Distinct()
    for letter in log.letters(topics, upto=upto, seen=seen):
        state = state_of(letter, marks)
        if distinct(letter) and state in OPEN and wanted.takes(letter, state):
            yield letter


def sendable(letters: Iterable[Letter], rules: Rules, outcome: Outcome, size: int) -> Iterable[Sequence[Letter]]:
    """Yield the letters that may be sent, in lists of one topic; count the others in the outcome."""

    def young() -> Iterable[Letter]:
        for letter in letters:
            if letter.attempts >= rules.max_attempts:
                outcome.exhausted += 1
            else:
                yield letter

    for batch in in_batches(young(), size):
        reasons = rules.check.failures(batch) if rules.check else [_no_payload(x) for x in batch]
        for reason in filter(None, reasons):
            error = reason.partition(":")[0]
            count, example = outcome.failing.get(error, (0, reason))
            outcome.failing[error] = count + 1, example
        good = [x for x, reason in zip(batch, reasons, strict=True) if reason is None]
        if good:
            yield good


def _no_payload(letter: Letter) -> str | None:
    return LEFT_OUT if letter.left_out else None


class Handling:
    """Sends and marks dead letters, one transaction per call. Blocking; use it as a context manager."""

    def __init__(
        self, kafka: KafkaSettings, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._kafka = kafka
        self._now_ms = now_ms
        self._failed: KafkaError | None = None
        self._facts = TopicFacts(kafka)
        self._admin = AdminClient(librdkafka_config(kafka) | QUIET)
        config = (
            librdkafka_config(kafka)
            | QUIET
            | {
                "transactional.id": TRANSACTIONAL_ID,
                "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "message.max.bytes": MAX_RECORD_BYTES,
                "linger.ms": 5,
            }
        )
        self._producer = Producer(config, logger=log)

    def __enter__(self) -> "Handling":
        """End whatever redrive was under way, and wait until its last transaction is committed or aborted.

        Raises:
            DeadLetterError: Kafka does not answer, or the topic of the marks is missing.
        """
        known = self._try("begin", lambda: self._admin.list_topics(timeout=30).topics)
        if HANDLED_TOPIC not in known:
            raise DeadLetterError(f"topic {HANDLED_TOPIC} does not exist", hint="run `fluvial init`")
        self._try("begin", lambda: self._producer.init_transactions(30))
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.purge()
        self._producer.flush(5)

    def redrive(self, letters: Sequence[Letter]) -> dict[str, str]:
        """Send letters of one topic and mark them; return the places of those that Kafka refuses, and why.

        Raises:
            DeadLetterError: Kafka does not answer, or another redrive has begun: nothing of this call was sent.
        """
        refused = self._transaction(letters, self._put_again)
        if not refused:
            return {}
        if len(letters) == 1:
            return {str(letters[0].place): refused}
        # Whoever is too large is found by halves; the others are sent.
        half = len(letters) // 2
        return self.redrive(letters[:half]) | self.redrive(letters[half:])

    def discard(self, letters: Sequence[Letter], reason: str) -> None:
        """Mark letters as discarded.

        Raises:
            DeadLetterError: as `redrive`.
        """
        mark = Mark("discarded", self._now_ms(), reason)
        self._transaction(letters, lambda letter: self._put_mark(letter, mark))

    def _put_again(self, letter: Letter) -> None:
        now = self._now_ms()
        facts = self._facts.of(letter.place.topic)
        self._producer.produce(
            letter.place.topic,
            value=letter.payload,
            key=letter.key,
            # Where it lay: whatever partitioner its producer used, the events of its key are there.
            partition=letter.place.partition if letter.place.partition < facts.partitions else -1,
            timestamp=facts.timestamp(letter.place.timestamp, now),
            headers=list(provenance(letter, now)),
            on_delivery=self._delivered,
        )
        self._put_mark(letter, Mark("redriven", now, times=letter.attempts + 1))

    def _put_mark(self, letter: Letter, mark: Mark) -> None:
        self._producer.produce(HANDLED_TOPIC, mark_value(mark), mark_key(letter.place), on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def _transaction(self, letters: Sequence[Letter], put: Callable[[Letter], None]) -> str | None:
        """Commit what ``put`` produces; return why Kafka refuses a record of it (then nothing is committed)."""
        self._failed = None
        self._try("begin a transaction", self._producer.begin_transaction)
        try:
            for letter in letters:
                put(letter)
                self._producer.poll(0)
            self._producer.flush(TRANSACTION_SECONDS)
        except KafkaException as e:
            self._failed = e.args[0]
        if self._failed is not None and self._failed.code() in (
            KafkaError.MSG_SIZE_TOO_LARGE,
            KafkaError.INVALID_TIMESTAMP,
            KafkaError.INVALID_RECORD,
        ):
            why = str(self._failed.str())
            self._try("abort a transaction", lambda: self._producer.abort_transaction(30))
            return why
        failpoints.hit("dead-letters.before-commit")
        self._try("commit a transaction", lambda: self._producer.commit_transaction(30))
        failpoints.hit("dead-letters.after-commit")
        return None

    def _try(self, what: str, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + 60
        while True:
            try:
                return call()
            except KafkaException as e:
                error = e.args[0]
                if error.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
                    raise DeadLetterError(
                        "another redrive or discard has begun and ended this one",
                        hint="what was sent is marked; run it again when the other one is done",
                    ) from None
                if error.retriable() and time.monotonic() < deadline:
                    continue
                if error.txn_requires_abort():
                    self._producer.abort_transaction(30)
                raise DeadLetterError(
                    f"cannot {what}: {error.str()}",
                    hint="nothing of the last transaction counts; run it again, it goes on where this one ended",
                ) from None


def paced(
    batches: Iterable[Sequence[Letter]],
    rate: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterable[Sequence[Letter]]:
    """Yield the batches so that no more than ``rate`` letters a second are on their way; None does not wait."""
    begun, done = clock(), 0
    for batch in batches:
        if rate is not None and done / rate > clock() - begun:
            sleep(done / rate - (clock() - begun))
        yield batch
        done += len(batch)
