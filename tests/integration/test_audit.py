"""``fluvial audit`` on real servers: silent where all is right, and every planted fault is found and named."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fluvial.cli import main
from fluvial.settings import Settings
from fluvial.transport.publisher import OutRecord
from support.audited import BASE, MINUTE, Deployment, deployment, reading, story

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Audit = Callable[..., Any]


@pytest.fixture(scope="module")
def running(cluster_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(cluster_settings, tmp_path_factory.mktemp("audit")) as d:
        d.publish(d.minute.source, story())
        d.run()
        yield d


@pytest.fixture
def audit(running: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audit:
    """Run ``fluvial audit`` and return its JSON (or, with a format, its text); the exit code must be the given one."""
    for name in [n for n in os.environ if n.startswith("FLUVIAL_")]:
        monkeypatch.delenv(name)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, code: int = 0, text: bool = False) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as e:
            main(["audit", *arguments, *([] if text else ["--format", "json"])])
        captured = capsys.readouterr()
        assert e.value.code == code, captured.out + captured.err
        return captured.out + captured.err if text or code == 2 else json.loads(captured.out)

    return run


def total(books: list[dict[str, Any]], pipeline: str, name: str) -> int:
    return sum(line["ledger"][name] for line in books if line["pipeline"] == pipeline)


def test_a_clean_run_audits_clean(running: Deployment, audit: Audit) -> None:
    found = audit("--recompute")
    assert found["ok"]
    names = ("records", "ticks", "duplicates", "late", "dead_lettered")
    assert [total(found["books"], running.minute.name, n) for n in names] == [105, 2, 2, 2, 3]
    assert all(line["late"]["records"] == line["ledger"]["late"] for line in found["books"])
    minute, sessions = (t["fates"] for t in found["tables"])
    assert minute == {"equal": 16}
    assert set(sessions) <= {"equal", "preview of a session"}
    told = audit(running.minute.name, "--recompute", "--sample", "2", "--seed", "3", text=True)
    assert "All right: 105 records in the log, each with one fate; 160 cells compared, all equal." in told


def test_what_is_on_its_way_is_neither_missing_nor_wrong_and_what_a_replay_wrote_is_compared_too(
    running: Deployment, audit: Audit
) -> None:
    name, topic = running.minute.name, running.minute.result_topic
    row = {"sensor_id": "s2", "metric": "m", "window_start": BASE, "window_end": BASE + MINUTE, "count": 1}
    row |= dict.fromkeys(("sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99"), 1.0)
    row |= {"duplicates": 0, "final": True, "generation": 0, "source_partition": 0, "source_offset": 1}
    running.publish(topic, [OutRecord(b"s2", running.value(topic, row), partition=0)])
    running.publish(running.minute.source, [reading("s0", BASE + 5 * MINUTE, 1.0, 2_000, 0)])
    running.replay(BASE, BASE + 2 * MINUTE)  # of its 8 windows two have late events
    found = audit(name, "--recompute", "--wait", "0")
    assert found["ok"]
    assert sum(line["waiting"] for line in found["books"]) == 1
    assert found["tables"][0]["fates"] == {"equal": 8, "not settled": 8}
    running.run()  # the row is older than what the table has: Cassandra keeps that
    (table,) = audit(name, "--recompute")["tables"]
    assert (table["fates"], table["generations"]) == ({"equal": 17}, {"1": 8})


def test_every_fault_in_a_table_is_found(running: Deployment, audit: Audit) -> None:
    name = running.minute.name
    day, later = "day = '2023-11-14'", 2 << 44  # than a replay's rows of generation 1

    def where(sensor: str, minute: int) -> str:
        return f"WHERE sensor_id = '{sensor}' AND metric = 'm' AND {day} AND window_start = {BASE + minute * MINUTE}"

    running.execute(
        f"UPDATE {name} SET count = 99 {where('s0', 0)}",
        f"DELETE FROM {name} {where('s0', 1)}",
        f"UPDATE {name} USING TIMESTAMP {later} SET sum = 5.5 {where('s1', 0)}",
        f"INSERT INTO {name} (sensor_id, metric, day, window_start, count, final, generation, source_partition, "
        f"source_offset) VALUES ('ghost', 'm', '2023-11-14', {BASE}, 1, true, 0, 0, 3) USING TIMESTAMP 3",
        f"UPDATE {name} USING TTL 9000 AND TIMESTAMP {later} SET final = true {where('s1', 1)}",
        f"UPDATE {name} USING TIMESTAMP {later} SET max = 77.5 {where('s3', 0)}",
    )
    found = audit(name, "--recompute", code=1)
    assert not found["ok"]
    assert all(line["ok"] for line in found["books"])
    (table,) = found["tables"]
    told = {
        (dict(d["key"])["sensor_id"], (d["window_start"] - BASE) // MINUTE, d["kind"], d["column"])
        for d in table["differences"]
    }
    assert told == {
        ("s0", 0, "cell", "count"),
        ("s0", 0, "write timestamp", "count"),
        ("s0", 1, "missing", None),
        ("s1", 0, "cell", "sum"),
        ("s1", 0, "write timestamp", "sum"),
        ("ghost", 0, "not expected", None),
        ("s1", 1, "write timestamp", "final"),
        ("s1", 1, "expiry", None),
        ("s3", 0, "cell", "max"),
        ("s3", 0, "write timestamp", "max"),
    }
    text = audit(name, "--recompute", "--limit", "2", code=1, text=True)
    assert "count is 99, should be" in text or "by hand?" in text
    assert "… and 8 more" in text


def test_what_the_books_do_not_have_is_found(running: Deployment, audit: Audit) -> None:
    source, late = running.minute.source, f"{running.minute.source}.late"
    event = {
        "pipeline": running.minute.name, "key": b"s0", "source_topic": source, "source_partition": 0, "source_offset": 2,
        "event_time": BASE, "late_by_ms": 1, "closed_through": BASE, "generation": 0, "payload": b"",
    }  # fmt: skip
    value = running.value(late, event)
    running.publish(late, [OutRecord(b"s0", value), OutRecord(b"s0", value)])
    text = audit(code=1, text=True)
    assert f"{running.minute.name} {source}[0]: {late} has 2 late events of it, the ledger 1" in text
    assert "WRONG: 1 in the books." in text


def test_without_a_server_nothing_is_known(running: Deployment, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown pipeline" in audit("nonsense", code=2)
    assert "add --recompute" in audit("--sample", "3", code=2)
    monkeypatch.setenv("FLUVIAL_CASSANDRA__PORT", "1")
    assert "no answer from Cassandra" in audit("--recompute", code=2)
    monkeypatch.setenv("FLUVIAL_WORKER__GROUP", "nobody")
    assert "does not exist" in audit(code=2)
