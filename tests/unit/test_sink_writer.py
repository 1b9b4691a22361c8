"""The writer on a scripted session: retries, pauses, limits, refusals."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cassandra import InvalidRequest, OperationTimedOut, Unavailable

from fluvial.errors import SinkError
from fluvial.schemas.declarations import Table
from fluvial.sinks.limits import Backoff, Breaker
from fluvial.sinks.packed import PackedBatch, PackedProtocol
from fluvial.sinks.rows import RowBatches, row_batches
from fluvial.sinks.targets import result_target
from fluvial.sinks.writer import CassandraWriter
from support.sink_rows import SMALL, columns_of

AT_ONCE = Backoff(0.001, 0.002)
NOW_MS = 1_760_000_000_000


class ScriptedFuture:
    def __init__(self, answer: BaseException | None, later: Callable[[Callable[[], None]], None]) -> None:
        self._answer, self._later = answer, later

    def add_callbacks(self, callback: Callable[[Any], None], errback: Callable[[BaseException], None]) -> None:
        answer = self._answer
        self._later((lambda: callback(None)) if answer is None else (lambda: errback(answer)))


class ScriptedSession:
    """Answers each request with the next of a script, then with success, one turn of the loop later."""

    def __init__(self, *script: BaseException | None) -> None:
        self.script = list(script)
        self.sent: list[tuple[bytes, bytes, float]] = []
        self.open = 0
        self.most_open = 0
        self.client_protocol_handler: Any = None
        self.dropped = False

    def execute_async(self, statement: PackedBatch, timeout: float) -> ScriptedFuture:
        rows = statement._statements_and_parameters
        self.sent.append((statement.routing_key, bytes(rows.body), timeout))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return ScriptedFuture(self.script.pop(0) if self.script else None, self._later)

    def prepare(self, query: str) -> None:
        if self.dropped:
            raise InvalidRequest(f"unconfigured table small: {query}")

    def _later(self, call: Callable[[], None]) -> None:
        def answer() -> None:
            self.open -= 1
            call()

        asyncio.get_running_loop().call_later(0.001, answer)


def batches(partitions: int = 1) -> RowBatches:
    """Return one batch for each partition: its rows are too many to share one."""
    rows = [(f"sensor-{p}", NOW_MS + 60_000 * i, 1.0, 0, i) for p in range(partitions) for i in range(60)]
    columns, stamps = result_target(Table("small", ("sensor_id",), "day", retention_days=1)).rows(columns_of(rows))
    plan = replace(SMALL, statement=SimpleNamespace(query_string="INSERT …"))
    made = row_batches(plan, columns, np.arange(len(rows)), stamps, now_ms=NOW_MS, rows_per_batch=100)
    assert len(made) == partitions
    return made


def writer_on(session: ScriptedSession, failures_to_open: int = 1000, **options: Any) -> CassandraWriter:
    breaker = Breaker(failures_to_open, AT_ONCE)
    return CassandraWriter(session, timeout_seconds=7.0, backoff=AT_ONCE, breaker=breaker, **options)


async def turns(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to be")


async def test_every_batch_is_sent_with_its_routing_key_and_an_explicit_timeout() -> None:
    session = ScriptedSession()
    writer, made = writer_on(session), batches(3)
    await writer.write(made)
    assert [(key, timeout) for key, _, timeout in session.sent] == [(key, 7.0) for key in made.routing]
    assert b"".join(body for _, body, _ in session.sent) == bytes(made.body)
    assert (writer.counts.rows, writer.counts.batches, writer.counts.in_flight) == (180, 3, 0)
    assert session.client_protocol_handler is PackedProtocol


async def test_a_passing_failure_is_retried_with_the_same_bytes_until_it_passes() -> None:
    session = ScriptedSession(Unavailable("x"), OperationTimedOut(), Unavailable("x"))
    writer = writer_on(session)
    await writer.write(batches())
    assert len(session.sent) == 4
    assert len(set(session.sent)) == 1
    assert writer.counts.retries == 3


class PickySession(ScriptedSession):
    """Refuses batches in which one of the given source offsets is; keeps the offsets of those that it takes."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad = set(bad)
        self.taken: list[int] = []

    def execute_async(self, statement: PackedBatch, timeout: float) -> ScriptedFuture:
        rows = statement._statements_and_parameters
        offsets = offsets_in(bytes(rows.body), rows.count)
        if self.bad & set(offsets):
            self.script = [InvalidRequest("Key length of 70000 is longer than maximum of 65535")]
        else:
            self.script = []
            self.taken += offsets
        return super().execute_async(statement, timeout)


def offsets_in(body: bytes, count: int) -> list[int]:
    """Return the source offsets of packed rows of the small table, all of one size."""
    size = len(body) // count
    return [int.from_bytes(body[i * size :][size - 28 : size - 20], "big") for i in range(count)]


@pytest.mark.parametrize("bad", [(), (0,), (59,), (3, 4, 40), tuple(range(60))])
async def test_rows_that_cassandra_does_not_take_are_found_and_the_others_are_written(bad: tuple[int, ...]) -> None:
    session = PickySession(*bad)
    writer = writer_on(session)
    refused = await writer.try_write(batches())
    assert [(e.row, e.stage, e.error_type) for e in refused] == [(row, "write", "InvalidRequest") for row in bad]
    assert sorted(session.taken) == [i for i in range(60) if i not in bad]
    assert writer.counts.rows == 60 - len(bad)
    assert (writer.counts.in_flight, session.open) == (0, 0)


async def test_who_cannot_go_on_without_a_row_hears_of_it() -> None:
    with pytest.raises(SinkError, match=r"refuses 1 rows of tests.small: InvalidRequest: Key length"):
        await writer_on(PickySession(7)).write(batches())


async def test_a_table_that_is_gone_stops_the_write_and_blames_no_row() -> None:
    session = ScriptedSession(*[InvalidRequest("unconfigured table small")] * 100)
    session.dropped = True
    with pytest.raises(SinkError, match=r"refuses rows of tests.small: InvalidRequest: unconfigured table small"):
        await writer_on(session).try_write(batches(5))
    assert len(session.sent) == 5


async def test_a_request_that_cannot_even_be_sent_is_classified_too() -> None:
    session = ScriptedSession()
    session.execute_async = lambda *_, **__: (_ for _ in ()).throw(TypeError("a bug"))  # type: ignore[method-assign]
    with pytest.raises(SinkError, match="TypeError: a bug"):
        await writer_on(session).write(batches())


async def test_no_more_is_in_flight_than_the_limit_allows() -> None:
    session = ScriptedSession()
    await writer_on(session, max_in_flight=4).write(batches(20))
    assert session.most_open == 4


async def test_two_writes_share_one_limit() -> None:
    session = ScriptedSession()
    writer = writer_on(session, max_in_flight=4)
    await asyncio.gather(writer.write(batches(10)), writer.write(batches(10)))
    assert session.most_open == 4
    assert writer.counts.batches == 20


async def test_while_cassandra_is_away_one_probe_at_a_time_is_sent_and_then_all_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = ScriptedSession(*[Unavailable("x")] * 30)
    writer = writer_on(session, failures_to_open=3, max_in_flight=8)
    seen: list[int] = []

    async def watch() -> None:
        while True:
            if writer.paused and writer.counts.in_flight < 8:
                seen.append(session.open)
            await asyncio.sleep(0.0005)

    watching = asyncio.create_task(watch())
    with caplog.at_level(logging.WARNING):
        await writer.write(batches(12))
    watching.cancel()
    assert writer.counts.batches == 12
    assert writer.counts.pauses == 1
    assert not writer.paused
    assert seen.count(1) + seen.count(0) > 0
    assert max(seen[-5:]) <= 1
    told = [r.message for r in caplog.records]
    assert "the sink pauses and holds its offsets" in told[0]
    assert "the sink goes on" in told[-1]


async def test_a_cancelled_write_sends_nothing_more() -> None:
    session = ScriptedSession(*[Unavailable("x")] * 10_000)
    writer = writer_on(session, failures_to_open=1)
    writing = asyncio.create_task(writer.write(batches(4)))
    await turns(lambda: writer.paused)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await turns(lambda: not session.open)
    sent = len(session.sent)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(session.sent) == sent
    assert writer.counts.in_flight == 0


async def test_nothing_to_write_is_done_at_once() -> None:
    session = ScriptedSession()
    columns, stamps = result_target(Table("small", ("sensor_id",), "day")).rows(columns_of([]))
    await writer_on(session).write(row_batches(SMALL, columns, np.arange(0), stamps, now_ms=NOW_MS, rows_per_batch=100))
    assert session.sent == []
