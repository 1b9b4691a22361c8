"""The processes of a trial: started through the command line, watched, and started again when they were killed."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fluvial.failpoints import VARIABLE
from support.programs import FLUVIAL

STOP_SECONDS = 60.0
STARTED = "---- started"
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Member:
    """A process by its lasting name, and how it is to be started."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    expected_end: bool = False
    killed_at: float | None = None
    stopped: bool = False
    may_end: bool = False
    deaths: int = 0


@dataclass
class Processes:
    """Members by name; ``on_killed`` is told of every death by SIGKILL, ``violations`` of every other end."""

    folder: Path
    on_killed: Callable[[Member], None]
    violations: list[str] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Declare a process."""
        self.members[name] = Member(name, command, environment)

    def start(self, name: str, failpoints: str = "") -> None:
        """Start a process, with failpoints for this life only."""
        with self._lock:
            m = self.members[name]
            assert m.process is None or m.process.poll() is not None, f"{name} runs"
            environment = {**m.environment, **({VARIABLE: failpoints} if failpoints else {})}
            with (self.folder / f"{name}.log").open("ab") as log:
                log.write(f"{STARTED}, {failpoints or 'no failpoints'}\n".encode())
                log.flush()
                m.process = subprocess.Popen(
                    [FLUVIAL, *m.command], env=environment, cwd=self.folder, stdout=log, stderr=log
                )
            m.expected_end = bool(failpoints) and "=kill" in failpoints
            m.stopped, m.may_end, m.killed_at = False, False, None

    def send(self, name: str, number: signal.Signals) -> None:
        """Signal a process that runs; a SIGKILL is expected to end it."""
        with self._lock:
            m = self.members[name]
            if m.process is None or m.process.poll() is not None:
                return
            if number is signal.SIGKILL:
                m.expected_end = True
            m.process.send_signal(number)

    def is_running(self, name: str) -> bool:
        """Say whether the process lives, paused or not."""
        process = self.members[name].process
        return process is not None and process.poll() is None

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask a process to stop and wait for its end in order; anything but status 0 is a violation."""
        with self._lock:
            m = self.members[name]
            m.stopped = True
            process = m.process
        if process is None or process.poll() is not None:
            return
        # One that is still importing has no handler yet, and what a signal does then is the shell's business.
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and not self._has_begun(name) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.violations.append(f"I6: {name} did not stop within {STOP_SECONDS:.0f} s of {number.name}")
            return
        if status != 0:
            self.violations.append(f"I6: {name} ended with status {status} on {number.name}: {self.last_words(name)}")

    def look(self, restart_seconds: float) -> None:
        """Note memory, report who ended, start again who was killed (or died) longer ago than that."""
        with self._lock:
            for m in self.members.values():
                if m.process is None or m.stopped:
                    continue
                status = m.process.poll()
                if status is None:
                    self._measure(m)
                elif m.killed_at is None:
                    m.killed_at = time.monotonic()
                    m.deaths += 1
                    if m.may_end:
                        m.stopped = True
                        continue
                    if status == -signal.SIGKILL and m.expected_end:
                        self.on_killed(m)
                    else:
                        self.violations.append(f"I6: {m.name} ended by itself ({status}): {self.last_words(m.name)}")
                if m.killed_at is not None and time.monotonic() - m.killed_at >= restart_seconds:
                    self.start(m.name)

    def last_words(self, name: str) -> str:
        """Return the last lines of a process's log."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return " | ".join(_told(line) for line in lines[-5:])

    def close(self) -> None:
        """Kill whatever is left."""
        for m in self.members.values():
            m.stopped = True
            if m.process is not None and m.process.poll() is None:
                m.process.kill()
            if m.process is not None:
                m.process.wait()

    def _has_begun(self, name: str) -> bool:
        life = (self.folder / f"{name}.log").read_text(errors="replace").rpartition(STARTED)[2]
        return "Starting..." in life

    def _measure(self, m: Member) -> None:
        assert m.process is not None
        try:
            pages = int(Path(f"/proc/{m.process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return
        self.peak_mb[m.name] = max(self.peak_mb.get(m.name, 0.0), pages * PAGE / 2**20)


def _told(line: str) -> str:
    """Return what a line of a log says, without its time and origin."""
    try:
        return str(json.loads(line)["event"])[:200]
    except (ValueError, KeyError, TypeError):
        return line.strip()[:200]
