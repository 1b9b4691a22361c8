"""The writer: batches of rows into Cassandra; asyncio outside, driver callbacks inside."""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fluvial.errors import SinkError
from fluvial.records import RowError
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
    """One write: how many of its parts are not acknowledged yet, and which rows Cassandra does not take."""

    __slots__ = ("batches", "checked", "done", "open", "refused", "tasks")

    def __init__(self, batches: RowBatches, done: "asyncio.Future[None]") -> None:
        self.batches = batches
        self.done = done
        self.open = len(batches)
        self.refused: list[RowError] = []
        self.checked: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def settle(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Part:
    """Some rows of a job, sent together: a batch, or a half of one that was refused."""

    __slots__ = ("body", "first", "job", "routing", "rows")

    def __init__(self, job: _Job, routing: bytes, first: int, rows: int, body: memoryview) -> None:
        self.job, self.routing, self.first, self.rows, self.body = job, routing, first, rows, body

    def halves(self) -> "tuple[_Part, _Part]":
        """Return two parts; what is at fault is in one of them, or in both."""
        b, middle = self.job.batches, self.first + self.rows // 2
        start, cut, end = (int(b.starts[i]) for i in (self.first, middle, self.first + self.rows))
        return (
            _Part(self.job, self.routing, self.first, self.rows // 2, b.body[start:cut]),
            _Part(self.job, self.routing, middle, self.rows - self.rows // 2, b.body[cut:end]),
        )


# What was sent, attempt, when it was sent, and what it failed of.
_Answer = tuple[_Part, int, float, BaseException | None]


class CassandraWriter:
    """Writes row batches through one session, as many at once as Cassandra bears.

    A batch that fails for a passing reason is sent again, with the same write timestamps, for ever: after
    ``failures_to_open`` failures in a row everything but one probe at a time waits, which the log and `counts` say.
    A batch that Cassandra calls invalid is halved until the rows that are at fault are alone.
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
        """Write every row; returns when Cassandra has acknowledged all of them. Cancelling gives up what is open.

        Raises:
            SinkError: Cassandra refuses a row or a batch for a reason that no retry can mend.
        """
        refused = await self.try_write(batches)
        if refused:
            told = f"Cassandra refuses {len(refused)} rows of {batches.plan.keyspace}.{batches.plan.name}"
            raise SinkError(f"{told}: {refused[0].message}", hint="the other rows are written")

    async def try_write(self, batches: RowBatches) -> list[RowError]:
        """As `write`, but return the rows that Cassandra does not take, with its reasons, in their order.

        Raises:
            SinkError: Cassandra refuses whole batches for a reason that no retry can mend.
        """
        self._counts.expired += batches.expired
        self._counts.superseded += batches.superseded
        if not len(batches):
            return []
        job = _Job(batches, asyncio.get_running_loop().create_future())
        first, b = 0, batches
        try:
            for i in range(len(b)):
                await self._admit(job)
                if job.done.done():
                    break
                self._send(_Part(job, b.routing[i], first, b.counts[i], b.body[b.bounds[i] : b.bounds[i + 1]]), 1)
                first += b.counts[i]
            await job.done
            return sorted(job.refused, key=lambda e: e.row)
        finally:
            job.done.cancel()
            for task in (*job.tasks, *([job.checked] if job.checked else [])):
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

    def _send(self, part: _Part, attempt: int) -> None:
        statement = PackedBatch(part.job.batches.plan.keyspace, part.routing, PackedRows(part.rows, part.body))
        loop = asyncio.get_running_loop()
        sent_at = self._clock()

        def answered(error: BaseException | None) -> None:
            # In the driver's thread. One wake-up of the loop serves all answers that came in the meantime.
            self._answers.append((part, attempt, sent_at, error))
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

    def _answered(self, part: _Part, attempt: int, sent_at: float, error: BaseException | None) -> None:
        now = self._clock()
        in_flight = self._in_flight
        self._in_flight -= 1
        self._moved.set()
        job = part.job
        if error is None:
            self._limit.answered(sent_at, now, in_flight)
            self._resumed(self._breaker.succeeded(now))
            self._counts.batches += 1
            self._counts.rows += part.rows
            job.settle()
            return
        found = verdict(error)
        if found is Verdict.REFUSED:
            job.fail(_refused(job, error))
            return
        if found is Verdict.INVALID:
            self._resumed(self._breaker.succeeded(now))
            if not job.done.done():
                self._begin(job, self._isolate(part, error))
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
        if not job.done.done():
            self._counts.retries += 1
            self._begin(job, self._again(part, attempt))

    def _begin(self, job: _Job, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    async def _again(self, part: _Part, attempt: int) -> None:
        if not self.paused:
            await asyncio.sleep(self._backoff.seconds(attempt, self._rng))
        await self._admit(part.job)
        if not part.job.done.done():
            self._send(part, attempt + 1)

    async def _isolate(self, part: _Part, error: BaseException) -> None:
        """Send the halves of what Cassandra calls invalid; a row that is alone is at fault if its table is as it was."""
        job = part.job
        if job.checked is None:
            job.checked = asyncio.create_task(self._check_table(job))
        await asyncio.shield(job.checked)
        if job.done.done():
            return
        if part.rows == 1:
            row = int(job.batches.source[part.first])
            job.refused.append(RowError(row, "write", type(error).__name__, describe(error)))
            job.settle()
            return
        job.open += 1
        for half in part.halves():
            await self._admit(job)
            if not job.done.done():
                self._send(half, 1)

    async def _check_table(self, job: _Job) -> None:
        """Fail the job if its statement cannot be prepared any more: then the table has changed, and no row is bad."""
        attempt = 0
        while not job.done.done():
            attempt += 1
            try:
                await asyncio.to_thread(self._session.prepare, job.batches.plan.statement.query_string)
            except Exception as e:  # noqa: BLE001 — classified like every other failure
                if verdict(e) in (Verdict.INVALID, Verdict.REFUSED):
                    job.fail(_refused(job, e))
                    return
                await asyncio.sleep(self._backoff.seconds(attempt, self._rng))
            else:
                return

    def _resumed(self, paused_seconds: float | None) -> None:
        if paused_seconds is not None:
            log.warning("Cassandra answers again after %.1f s: the sink goes on", paused_seconds)


def _refused(job: _Job, error: BaseException) -> SinkError:
    plan = job.batches.plan
    return SinkError(
        f"Cassandra refuses rows of {plan.keyspace}.{plan.name}: {describe(error)}",
        hint="mend the table or the user's rights; nothing was skipped, the sink reads on from here",
    )
