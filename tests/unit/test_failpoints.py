import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial import failpoints
from fluvial.errors import SettingsError

ROOT = Path(failpoints.__file__).parent
SINK = "sink.between-write-and-commit"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def test_nothing_happens_unless_asked_for() -> None:
    failpoints.arm({})
    for name in failpoints.NAMES:
        failpoints.hit(name)


def test_an_action_happens_at_the_nth_hit_and_only_then() -> None:
    failpoints.arm({failpoints.VARIABLE: f"{SINK}=raise@3"})
    failpoints.hit(SINK)
    failpoints.hit(SINK)
    with pytest.raises(failpoints.FailpointError):
        failpoints.hit(SINK)
    failpoints.hit(SINK)


def test_a_pause_lasts_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(failpoints.time, "sleep", slept.append)
    failpoints.arm({failpoints.VARIABLE: f" {SINK}=pause:2.5 , checkpoint.amid-chunks=kill@9"})
    failpoints.hit(SINK)
    failpoints.hit("checkpoint.amid-chunks")
    assert slept == [2.5]


def test_a_kill_is_a_sigkill() -> None:
    code = f"from fluvial import failpoints as f; import os; f.arm(os.environ); f.hit({SINK!r}); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={failpoints.VARIABLE: f"{SINK}=kill"}, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


@pytest.mark.parametrize("asked", ["sink.between=kill", SINK, f"{SINK}=explode", f"{SINK}=kill@0", f"{SINK}=pause"])
def test_what_is_unknown_is_refused(asked: str) -> None:
    with pytest.raises(SettingsError):
        failpoints.arm({failpoints.VARIABLE: asked})


def test_every_name_is_a_place_in_the_code_and_the_other_way_round() -> None:
    folders = {Path(__import__(f"fluvial.{f}", fromlist=["x"]).__file__ or "").parent for f in ("stream_apps", "sinks")}
    text = "".join(p.read_text() for folder in (ROOT, *folders) for p in folder.rglob("*.py"))
    placed = {part.split('"')[0] for part in text.split('failpoints.hit("')[1:]}
    assert placed == failpoints.NAMES


def test_every_name_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "try-the-faults.md").read_text()
    assert set(re.findall(r"^\| `([a-z.-]+)` \|", page, re.M)) == failpoints.NAMES
