"""The client: what `send` took arrives once the gateway lets it, in order, whatever happens in between."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluvial.client import AsyncClient, Client, OutboxError, OutboxFullError, sending
from support.gateway import FakeGateway, fake_gateway

AWAY = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_DELAY_SECONDS", 0.005)
    monkeypatch.setattr(sending, "LONGEST_DELAY_SECONDS", 0.05)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as fake:
        yield fake


def client(url: str | list[str], tmp_path: Path, **options: Any) -> Client:
    defaults: dict[str, Any] = {"buffer": tmp_path / "buffer.db", "batch_seconds": 0.01, "timeout_seconds": 5.0}
    return Client(url, key="k", topic="iot.readings", **{**defaults, **options})


def events(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"sensor_id": "s", "value": i} for i in range(start, start + n)]


def test_events_arrive_in_order_and_numbered(gateway: FakeGateway, tmp_path: Path) -> None:
    with client(gateway.url, tmp_path, batch_events=7) as c:
        for e in events(20):
            c.send(e)
        assert c.flush(10)
        assert c.waiting == 0
        assert c.acknowledged == 20
    assert [e["value"] for e in gateway.accepted] == list(range(20))
    assert [e["sequence"] for e in gateway.accepted] == list(range(1, 21))


def test_a_batch_whose_answer_was_lost_is_sent_again_under_the_same_name(gateway: FakeGateway, tmp_path: Path) -> None:
    cuts = {
        0: "before",
        1: "after",
        2: (503, {"detail": "away"}, {}),
        3: (429, {"detail": "slow down"}, {"Retry-After": "0"}),
    }
    gateway.answer = lambda number, _: cuts.get(number)  # type: ignore[assignment,return-value]
    with client(gateway.url, tmp_path) as c:
        c.send(*events(5))
        assert c.flush(10)
    assert gateway.requests == 5
    assert len(set(gateway.names)) == 1
    assert [e["value"] for e in gateway.accepted] == [*range(5), *range(5)]
    assert len({e["sequence"] for e in gateway.accepted}) == 5


def test_what_waits_outlives_the_client_and_sequence_numbers_go_on(gateway: FakeGateway, tmp_path: Path) -> None:
    first = client(AWAY, tmp_path)
    first.send(*events(3))
    assert not first.flush(0.05)
    first.close()
    with client(gateway.url, tmp_path) as c:
        c.send(*events(2, 3))
        assert c.flush(10)
    with client(gateway.url, tmp_path) as c:
        c.send(*events(1, 5))
        assert c.flush(10)
    assert [(e["value"], e["sequence"]) for e in gateway.accepted] == [(i, i + 1) for i in range(6)]


def test_a_killed_process_loses_nothing_that_send_took(gateway: FakeGateway, tmp_path: Path) -> None:
    code = """
        import sys, json
        from fluvial.client import Client
        c = Client(sys.argv[1], key="k", topic="iot.readings", buffer=sys.argv[2], batch_events=10, batch_seconds=0.0)
        for i in range(100_000):
            c.send({"sensor_id": "s", "value": i})
            print(i, flush=True)
    """
    for n in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), gateway.url, str(tmp_path / "buffer.db")],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        taken = []
        with process.stdout:
            for line in process.stdout:
                taken.append(int(line))
                if len(taken) == 150 + 50 * n:
                    os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with client(gateway.url, tmp_path) as c:
        assert c.flush(20)
    by_sequence = {e["sequence"]: e["value"] for e in gateway.accepted}
    in_order = [by_sequence[s] for s in sorted(by_sequence)]
    # Two processes, each from 0: every number that was printed has arrived, and at most one more of each.
    second = in_order.index(0, 1)
    assert in_order[:second] == list(range(second))
    assert in_order[second:] == list(range(len(in_order) - second))
    assert second in (150, 151) or second > 151  # lines that were still in the pipe
    assert len(in_order) - second >= len(taken)


def test_refused_events_are_kept_aside_with_their_reasons(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answer = lambda number, batch: (  # type: ignore[assignment,return-value]
        200,
        {"accepted": len(batch) - 1, "rejected": [{"index": 1, "kind": "invalid", "reason": "value: missing"}]},
        {},
    )
    with client(gateway.url, tmp_path, batch_seconds=0.2) as c:
        c.send(*events(3))
        assert c.flush(10)
        assert [(w.number, reason) for w, reason in c.rejected()] == [(2, "value: missing")]
        assert c.acknowledged == 2


def test_with_several_gateways_it_goes_on_with_the_next_one(gateway: FakeGateway, tmp_path: Path) -> None:
    with client([AWAY, gateway.url], tmp_path) as c:
        c.send(*events(10))
        assert c.flush(10)
    assert len(gateway.accepted) == 10


def test_a_wrong_key_loses_nothing(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answer = lambda number, _: (401, {"detail": "who are you?"}, {}) if number < 3 else None  # type: ignore[assignment]
    with client(gateway.url, tmp_path) as c:
        c.send(*events(4))
        assert c.flush(10)
    assert len(gateway.accepted) == 4


def test_a_batch_that_is_too_large_is_halved(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answer = lambda number, batch: (413, {"detail": "too large"}, {}) if len(batch) > 3 else None  # type: ignore[assignment]
    with client(gateway.url, tmp_path, batch_seconds=0.1) as c:
        c.send(*events(20))
        assert c.flush(10)
    assert [e["value"] for e in gateway.accepted] == list(range(20))


def test_a_full_buffer_drops_the_oldest_and_counts_it(tmp_path: Path, gateway: FakeGateway) -> None:
    c = client(AWAY, tmp_path, most=10, when_full="drop-oldest")
    c.send(*events(25))
    assert (c.waiting, c.dropped) == (10, 15)
    c.close()
    with client(gateway.url, tmp_path) as c:
        assert c.flush(10)
        assert c.dropped == 15
    assert [e["value"] for e in gateway.accepted] == list(range(15, 25))


def test_a_full_buffer_may_refuse_or_make_the_sender_wait(tmp_path: Path, gateway: FakeGateway) -> None:
    c = client(AWAY, tmp_path, most=4, when_full="refuse")
    c.send(*events(4))
    with pytest.raises(OutboxFullError, match="4 events wait"):
        c.send(*events(1))
    c.close()
    with client(gateway.url, tmp_path, most=4) as c:
        c.send(*events(50))
        assert c.flush(10)
    assert len(gateway.accepted) == 54


def test_a_buffer_belongs_to_one_process(tmp_path: Path) -> None:
    c = client(AWAY, tmp_path)
    c.send(*events(1))
    with pytest.raises(OutboxError, match="another process uses it"):
        client(AWAY, tmp_path)
    c.close()


def test_a_file_that_is_no_buffer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "buffer.db").write_bytes(b"something else" * 1000)
    with pytest.raises(OutboxError, match="move it away"):
        client(AWAY, tmp_path)


def test_an_event_that_is_not_json_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    c = client(AWAY, tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        c.send({"value": 1.0}, {"value": float("nan")})
    assert c.waiting == 0
    c.close()


async def test_the_client_for_asyncio_does_the_same(gateway: FakeGateway, tmp_path: Path) -> None:
    async with AsyncClient(gateway.url, key="k", topic="t", buffer=tmp_path / "b.db", batch_seconds=0.01) as c:
        await c.send(*events(5))
        assert await c.flush(10)
    assert len(gateway.accepted) == 5
