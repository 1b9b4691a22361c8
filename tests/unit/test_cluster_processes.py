import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.cluster.logs import quote, relevant_lines, rotate
from fluvial.cluster.processes import ProcessId, identify, is_alive, memory_mb, send, spawn, terminate, wait_gone

SHELL = "/bin/sh"


@pytest.fixture
def started() -> Iterator[list[ProcessId]]:
    """Processes of a test, ended after it."""
    processes: list[ProcessId] = []
    yield processes
    for p in processes:
        send(p, signal.SIGKILL)
    assert wait_gone(processes, 5) == []


def test_a_process_runs_in_a_session_of_its_own_and_writes_to_its_log(tmp_path: Path, started: list[ProcessId]) -> None:
    log = tmp_path / "logs" / "x.log"
    process = spawn([SHELL, "-c", "echo out $GREETING; echo err >&2; exec sleep 60"], {"GREETING": "hello"}, log)
    started.append(process)
    _until(lambda: log.read_text() == "out hello\nerr\n")
    assert is_alive(process)
    assert os.getsid(process.pid) == process.pid
    assert memory_mb(process)


def test_a_process_that_ended_is_not_alive_and_leaves_no_zombie(tmp_path: Path) -> None:
    process = spawn([SHELL, "-c", "exit 3"], {}, tmp_path / "log")
    assert wait_gone([process], 5) == []
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_reused_pid_is_never_taken_for_the_process_nor_signalled(tmp_path: Path, started: list[ProcessId]) -> None:
    other = spawn([SHELL, "-c", "exec sleep 60"], {}, tmp_path / "log")
    started.append(other)
    stale = ProcessId(other.pid, "started at another time")
    assert not is_alive(stale)
    assert not send(stale, signal.SIGKILL)
    assert terminate([stale], grace_seconds=1) == []
    assert is_alive(other)


def test_a_process_is_identified_by_its_pid() -> None:
    mine = identify(os.getpid())
    assert mine is not None
    assert is_alive(mine)
    assert identify(2**22 + 1) is None


def test_ending_takes_sigterm_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn([SHELL, "-c", "trap 'echo bye; exit' TERM; echo on; while :; do sleep 0.05; done"], {}, log)
    _until(lambda: log.read_text() == "on\n")
    assert terminate([process], grace_seconds=5) == []
    assert log.read_text() == "on\nbye\n"


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn([SHELL, "-c", "trap '' TERM; echo on; while :; do sleep 0.05; done"], {}, log)
    _until(lambda: log.read_text() == "on\n")
    assert terminate([process], grace_seconds=0.3) == [process]
    assert not is_alive(process)


def test_a_paused_process_is_alive_and_can_be_ended(tmp_path: Path) -> None:
    process = spawn(["/bin/sleep", "60"], {}, tmp_path / "log")
    send(process, signal.SIGSTOP)
    assert is_alive(process)
    assert terminate([process], grace_seconds=5) == []
    assert not is_alive(process)


def test_lines_that_report_trouble_are_quoted_without_stack_frames() -> None:
    log = "\n".join(
        [
            "10:00:00 INFO  starting",
            "10:00:01 ERROR Main: cannot bind",
            "java.net.BindException: Address already in use",
            "\tat java.base/sun.nio.ch.Net.bind0(Native Method)",
            "\t... 12 more",
            "Caused by: the other one",
            "10:00:02 INFO  shutting down",
        ]
    )
    assert relevant_lines(log) == [
        "10:00:01 ERROR Main: cannot bind",
        "java.net.BindException: Address already in use",
        "Caused by: the other one",
    ]


def test_without_trouble_the_last_lines_are_quoted() -> None:
    assert relevant_lines("\n".join(f"line {i}" for i in range(50)), 2) == ["line 48", "line 49"]
    assert relevant_lines("") == []


def test_a_missing_log_quotes_nothing(tmp_path: Path) -> None:
    assert quote(tmp_path / "none.log") == ""


def test_a_rotated_log_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for text in ("first", "second"):
        log.write_text(text)
        rotate(log)
    assert not log.exists()
    assert (tmp_path / "a.log.1").read_text() == "second"


def _until(condition: object, seconds: float = 5) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def _holds(condition: object) -> bool:
    assert callable(condition)
    try:
        return bool(condition())
    except FileNotFoundError:
        return False
