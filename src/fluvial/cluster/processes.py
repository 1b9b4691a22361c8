"""Child processes that outlive their starter, known by pid *and* start time: a reused pid is never signalled."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ProcessId:
    """A process; ``started`` is opaque and tells it from a later one with the same pid (also after a reboot)."""

    pid: int
    started: str


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path) -> ProcessId:
    """Start a program in a session of its own, its output appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    no_input = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    both = (os.POSIX_SPAWN_DUP2, 1, 2)
    pid = os.posix_spawn(argv[0], list(argv), dict(env), file_actions=[no_input, to_log, both], setsid=True)
    return ProcessId(pid, _start_mark(pid) or "")


def identify(pid: int) -> ProcessId | None:
    """Return the live process with this pid, if there is one."""
    started = _start_mark(pid)
    return None if started is None else ProcessId(pid, started)


def is_alive(process: ProcessId) -> bool:
    """Say whether this very process runs (a paused one does); reaps it when it is our own dead child."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return identify(process.pid) == process


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal this very process; False when it no longer runs."""
    if not is_alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def terminate(processes: Sequence[ProcessId], grace_seconds: float) -> list[ProcessId]:
    """End all of them: SIGTERM (and SIGCONT, for the paused), then SIGKILL after ``grace_seconds``.

    Returns those that had to be killed.
    """
    for p in processes:
        send(p, signal.SIGTERM)
        send(p, signal.SIGCONT)
    stubborn = wait_gone(processes, grace_seconds)
    for p in stubborn:
        send(p, signal.SIGKILL)
    wait_gone(stubborn, grace_seconds)
    return stubborn


def wait_gone(processes: Sequence[ProcessId], timeout_seconds: float) -> list[ProcessId]:
    """Wait until none of them runs; return those that still do at the end."""
    deadline = time.monotonic() + timeout_seconds
    left = [p for p in processes if is_alive(p)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = [p for p in left if is_alive(p)]
    return left


def memory_mb(process: ProcessId) -> float | None:
    """Return the resident memory in MiB, None when unknown."""
    try:
        pages = int((Path("/proc") / str(process.pid) / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _start_mark(pid: int) -> str | None:
    """Return what tells this process from a later one with its pid; None when it has ended."""
    if Path("/proc/self/stat").exists():
        try:
            fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        except OSError:
            return None
        state, threads, started = fields[0], int(fields[17]), fields[19]
        # A killed process whose first thread is a zombie already still holds its ports while other threads end.
        return None if state == "Z" and threads <= 1 else f"{boot}-{started}"
    command = ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- an int, and no shell
    letters, _, started = shown.stdout.strip().partition(" ")
    return None if letters[:1] in ("", "Z") else started.strip()
