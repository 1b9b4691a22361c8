"""Dead letters from the operator's side, on a real Kafka: listed, shown, mended, sent again exactly once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluvial.cli import main
from fluvial.settings import KafkaSettings
from fluvial.transport.messages import read_to_end
from fluvial.transport.publisher import OutRecord
from support.aside import Place, place_of_its_own, reading, reading_schema

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MINUTE = 60_000
BASE = 1_700_000_000_000 // MINUTE * MINUTE
LATER = 4_000  # a schema id that nobody has registered yet
Run = Callable[..., str]


@pytest.fixture
def place(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Place]:
    with place_of_its_own(kafka, tmp_path) as place:
        yield place


@pytest.fixture
def fluvial(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a ``fluvial dead-letters`` command; its exit code must be 0 unless another is given."""
    for name in [n for n in os.environ if n.startswith("FLUVIAL_")]:
        monkeypatch.delenv(name)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as e:
            main(["dead-letters", *arguments])
        captured = capsys.readouterr()
        assert e.value.code == code, captured
        return captured.out + captured.err

    return run


def listed(fluvial: Run, place: Place, *arguments: str) -> list[dict]:
    out = fluvial("list", place.topic, "--format", "json", *arguments)
    return [json.loads(line) for line in out.splitlines()]


def in_topic(place: Place) -> list:
    return list(read_to_end(place.settings.kafka, place.topic, 1))


def fates(line: object) -> tuple[int, ...]:
    return tuple(getattr(line, n) for n in ("records", "aggregated", "duplicates", "late", "dead_lettered"))


def test_what_is_mended_is_sent_again_once_and_what_is_not_does_not_loop(place: Place, fluvial: Run) -> None:
    good = [OutRecord(b"a", reading("a", BASE + i, 1.0, i)) for i in range(3)]
    unknown = [
        OutRecord(b"a", reading("a", BASE + i, 2.0, i, LATER), (("gateway", b"g1"), ("empty", None))) for i in (10, 11)
    ]
    hopeless = OutRecord(None, b"garbage")
    place.publish([good[0], unknown[0], good[1], hopeless, unknown[1], good[2]])
    assert fates(place.work()) == (6, 3, 0, 0, 3)

    assert [(d["offset"], d["state"], d["stage"], d["error_type"]) for d in listed(fluvial, place)] == [
        (1, "open", "decode", "UnknownSchema"),
        (3, "open", "decode", "BadMagic"),
        (4, "open", "decode", "UnknownSchema"),
    ]
    assert [d["offset"] for d in listed(fluvial, place, "--error", "badmagic")] == [3]
    assert [d["offset"] for d in listed(fluvial, place, "--at", "0:4", "--stage", "decode")] == [4]
    assert listed(fluvial, place, "--to", "-1h") == []
    shown = fluvial("show", place.topic, "0:1")
    assert "it would fail again: decode, UnknownSchema: unknown schema id 4000" in shown
    assert "header gateway  g1" in shown

    # Nothing is mended yet, so nothing is sent.
    told = fluvial("redrive", place.topic, "--yes", code=1)
    assert "3 open dead letters: 0 can be sent again." in told
    place.registry.add(LATER, reading_schema())
    before = in_topic(place)
    assert "2 can be sent again" in fluvial("redrive", place.topic, "--dry-run")
    assert len(in_topic(place)) == len(before)
    told = fluvial("redrive", place.topic, "--yes", code=1)
    assert "2 records sent again." in told
    assert "left: 1 would fail again: decode, BadMagic" in told

    sent = in_topic(place)[6:]
    assert [(m.key(), m.value(), m.headers()[:2]) for m in sent] == [
        (u.key, u.value, [("gateway", b"g1"), ("empty", None)]) for u in unknown
    ]
    provenance = dict(sent[0].headers()[2:])
    assert provenance["fluvial-redriven-from"] == f"{place.topic}[0]@1".encode()
    assert provenance["fluvial-redriven-times"] == b"1"
    assert int(provenance["fluvial-redriven-timestamp"]) == before[1].timestamp()[1]
    assert fates(place.work()) == (8, 5, 0, 0, 3)

    # Again: what was sent is known.
    assert "1 open dead letter: 0 can be sent" in fluvial("redrive", place.topic, "--yes", code=1)
    assert len(in_topic(place)) == len(before) + 2
    assert [d["offset"] for d in listed(fluvial, place, "--state", "redriven")] == [1, 4]

    # What cannot be mended may be tried once, and is then left alone.
    assert "1 record sent again." in fluvial("redrive", place.topic, "--yes", "--unchecked")
    assert fates(place.work()) == (9, 5, 0, 0, 4)
    (again,) = listed(fluvial, place)
    assert (again["state"], again["redriven_times"], again["origin"]) == ("failed again", 1, f"{place.topic}[0]@3")
    assert "left: 1 failed again when redriven" in fluvial("redrive", place.topic, "--yes", "--unchecked", code=1)
    fluvial("discard", place.topic, "--reason", "no device sends that", "--yes")
    assert listed(fluvial, place) == []
    assert "no device sends that" in fluvial("show", place.topic, f"0:{again['offset']}")


def test_the_same_bad_record_set_aside_twice_is_one_dead_letter(place: Place, fluvial: Run) -> None:
    place.publish([OutRecord(b"a", b"garbage")])
    for _ in range(2):
        place.set_aside("NotFramed")
    place.publish([OutRecord(b"a", b"something else")], ".dead-letter")
    told = fluvial("list", place.topic)
    assert "Not counted: 1 repeats" in told
    assert "1 record of the dead-letter topics cannot be read as such" in told
    assert "1 record sent again." in fluvial("redrive", place.topic, "--yes", "--unchecked")
    assert len(in_topic(place)) == 2


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_redrive_killed_around_its_commit_and_run_again_sends_everything_once(
    place: Place, fluvial: Run, at: str
) -> None:
    bad = [OutRecord(b"a", reading("a", BASE + i, 2.0, i, LATER)) for i in range(1200)]
    place.publish(bad)
    place.set_aside("UnknownSchema")
    place.registry.add(LATER, reading_schema())
    arguments = ["dead-letters", "redrive", place.topic, "--yes", "--unchecked"]
    killed = subprocess.run(
        [sys.executable, "-m", "fluvial", *arguments],
        env={**os.environ, **place.environment, "FLUVIAL_FAILPOINTS": f"dead-letters.{at}-commit=kill@2"},
        capture_output=True,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # No waiting for the transaction that was left open: the next run aborts it.
    told = fluvial(*arguments[1:])
    assert f"{700 if at == 'before' else 200:,} records sent again." in told
    values = [m.value() for m in in_topic(place)]
    assert values == [b.value for b in bad] * 2
    assert "Nothing to redrive" in fluvial(*arguments[1:])
