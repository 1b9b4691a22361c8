"""The writer: batches of rows into Cassandra; asyncio outside, driver callbacks inside."""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fluvial.errors import SinkError
from fluvial.sinks.failures import Verdict, describe, verdict
from fluvial.sinks.limits import AdaptiveLimit, Backoff, Breaker
from fluvial.sinks.packed import PackedBatch, PackedProtocol, PackedRows
from fluvial.sinks.rows import RowBatches

log = logging.getLogger(__name__)

REMIND_SECONDS = 30.0


@dataclass(slots=True)
class WriterCounts:
    """What a writer has done so far; ``limit`` and ``in_flight`` are as of now, ``paused_since`` is monotonic."""

    rows: int = 0
    batches: int = 0
    retries: int = 0
    expired: int = 0
    superseded: int = 0
    limit: int = 0
    in_flight: int = 0
    pauses: int = 0
    paused_since: float | None = None


class _Job:
    """One `CassandraWriter.write`: how many of its batches are not acknowledged yet."""

    __slots__ = ("batches", "done", "open", "retrying")

    def __init__(self, batches: RowBatches, done: "asyncio.Future[None]") -> None:
        self.batches = batches
        self.done = done
        self.open = len(batches)
        self.retrying: set[asyncio.Task[None]] = set()

    def settle(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


# Job, batch, attempt, when it was sent, and what it failed of.
_Answer = tuple[_Job, int, int, float, BaseException | None]


class CassandraWriter:
    """Writes row batches through one session, as many at once as Cassandra bears.

    A batch that fails for a passing reason is sent again, with the same write timestamps, for ever: after
    ``failures_to_open`` failures in a row everything but one probe at a time waits, which the log and `counts` say.
    Everything happens in the event loop but the driver's own reading and writing.
    """

    def __init__(
        self,
        session: Any,
        *,
        max_in_flight: int = 256,
        timeout_seconds: float = 10.0,
        backoff: Backoff = Backoff(),  # noqa: B008 — frozen
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over a session of `fluvial.cassandra.connect` for writing; its protocol handler is set here."""
        session.client_protocol_handler = PackedProtocol
        self._session = session
        self._timeout = timeout_seconds
        self._limit = AdaptiveLimit(max_in_flight)
        self._backoff = backoff
        self._breaker = breaker or Breaker()
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 — jitter
        self._in_flight = 0
        self._moved = asyncio.Event()
        self._answers: deque[_Answer] = deque()
        self._woken = False
        self._reminded = 0.0
        self._counts = WriterCounts()

    @property
    def counts(self) -> WriterCounts:
        """What was done so far."""
        self._counts.limit = self._limit.allowed
        self._counts.in_flight = self._in_flight
        self._counts.paused_since = self._breaker.open_since
        return self._counts

    @property
    def paused(self) -> bool:
        """Whether Cassandra is away, so that only probes are sent."""
        return self._breaker.open_since is not None

    async def write(self, batches: RowBatches) -> None:
        """Write every batch; returns when Cassandra has acknowledged all of them. Cancelling gives up what is open.

        Raises:
            SinkError: Cassandra refuses a batch for a reason that no retry can mend.
        """
        self._counts.expired += batches.expired
        self._counts.superseded += batches.superseded
        if not len(batches):
            return
        job = _Job(batches, asyncio.get_running_loop().create_future())
        try:
            for i in range(len(batches)):
                await self._admit(job)
                if job.done.done():
                    break
                self._send(job, i, 1)
            await job.done
        finally:
            job.done.cancel()
            for task in job.retrying:
                task.cancel()

    async def _admit(self, job: _Job) -> None:
        """Wait until one more batch may be sent."""
        while not job.done.done():
            wait = self._breaker.wait_seconds(self._clock())
            if wait == 0 and self._in_flight < (1 if self.paused else self._limit.allowed):
                if self.paused:
                    self._breaker.take_probe(self._clock())
                return
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait or None):
                    await self._moved.wait()

    def _send(self, job: _Job, i: int, attempt: int) -> None:
        b = job.batches
        rows = PackedRows(b.counts[i], b.body[b.bounds[i] : b.bounds[i + 1]])
        statement = PackedBatch(b.plan.keyspace, b.routing[i], rows)
        loop = asyncio.get_running_loop()
        sent_at = self._clock()

        def answered(error: BaseException | None) -> None:
            # In the driver's thread. One wake-up of the loop serves all answers that came in the meantime.
            self._answers.append((job, i, attempt, sent_at, error))
            if not self._woken:
                self._woken = True
                with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for the answer
                    loop.call_soon_threadsafe(self._handle_answers)

        self._in_flight += 1
        try:
            future = self._session.execute_async(statement, timeout=self._timeout)
        except Exception as e:  # noqa: BLE001 — classified like every other failure
            answered(e)
            return
        future.add_callbacks(lambda _: answered(None), answered)

    def _handle_answers(self) -> None:
        self._woken = False
        while self._answers:
            self._answered(*self._answers.popleft())

    def _answered(self, job: _Job, i: int, attempt: int, sent_at: float, error: BaseException | None) -> None:
        now = self._clock()
        in_flight = self._in_flight
        self._in_flight -= 1
        self._moved.set()
        if error is None:
            self._limit.answered(sent_at, now, in_flight)
            self._resumed(self._breaker.succeeded(now))
            self._counts.batches += 1
            self._counts.rows += job.batches.counts[i]
            job.settle()
            return
        found = verdict(error)
        plan = job.batches.plan
        if found is Verdict.REFUSED:
            job.fail(
                SinkError(
                    f"Cassandra refuses rows of {plan.keyspace}.{plan.name}: {describe(error)}",
                    hint="mend the table or the user's rights; nothing was skipped, the sink reads on from here",
                )
            )
            return
        if found is Verdict.OVERLOADED:
            self._limit.overloaded(sent_at, now)
        if self._breaker.failed(now):
            self._counts.pauses += 1
            self._reminded = now
            log.warning("Cassandra is away (%s): the sink pauses and holds its offsets", describe(error))
        elif self.paused and now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            since = now - (self._breaker.open_since or now)
            log.warning("Cassandra is still away after %.0f s (%s)", since, describe(error))
        if job.done.done():
            return
        self._counts.retries += 1
        task = asyncio.get_running_loop().create_task(self._again(job, i, attempt))
        job.retrying.add(task)
        task.add_done_callback(job.retrying.discard)

    async def _again(self, job: _Job, i: int, attempt: int) -> None:
        if not self.paused:
            await asyncio.sleep(self._backoff.seconds(attempt, self._rng))
        await self._admit(job)
        if not job.done.done():
            self._send(job, i, attempt + 1)

    def _resumed(self, paused_seconds: float | None) -> None:
        if paused_seconds is not None:
            log.warning("Cassandra answers again after %.1f s: the sink goes on", paused_seconds)
