"""Measured processes: they say ``at N`` on standard output, and what they used is read from /proc at that moment.

The clock, the CPU time and the memory are taken here, in the same way for every one of them, whatever it is written in.
"""

import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from spans import Sample, Span, span_of

STILL_SECONDS = 60.0
END_SECONDS = 10.0
Child: TypeAlias = "subprocess.Popen[bytes]"
Lines: TypeAlias = "queue.SimpleQueue[tuple[int, str | None]]"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class MeasuredFailedError(Exception):
    """A measured process ended early or stood still; the message quotes what it wrote."""


@dataclass(frozen=True, slots=True)
class Catching:
    """What to run: one or more processes that catch up on a topic.

    The first ``warm_up`` of the ``events`` are not counted.
    """

    commands: tuple[tuple[str, ...], ...]
    warm_up: int
    events: int


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave: without the warm-up, and from the first event on; ``peak_mb`` is the sum over its processes."""

    span: Span
    whole: Span
    peak_mb: float


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_mb(pid: int | str) -> float:
    """Return the most memory that a process ever had resident, in MB (10⁶ bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def run(what: Catching, log: Path, environment: Mapping[str, str]) -> Run:
    """Run the processes until they have handled all events, end them, and return what it took.

    Raises:
        MeasuredFailedError: one ended early, or nothing moved for a minute.
        TooShortError: there were too few events to tell a rate.
    """
    lines: Lines = queue.SimpleQueue()
    with log.open("wb") as errors:
        children = [_start(command, log.parent, errors, environment) for command in what.commands]
        try:
            for i, child in enumerate(children):
                threading.Thread(target=_read, args=(i, child, lines), daemon=True).start()
            samples = _follow(children, lines, what.events, log)
            peak = sum(peak_mb(c.pid) for c in children)
            return Run(span_of(samples, what.warm_up, what.events), span_of(samples, 1, what.events), peak)
        finally:
            for child in children:
                _end(child)


def call(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> str:
    """Run a process that measures itself; return the last line that it wrote to standard output.

    Raises:
        MeasuredFailedError: it failed or wrote nothing.
    """
    with log.open("wb") as errors:
        child = _start(command, log.parent, errors, environment)
        try:
            out, _ = child.communicate()
        finally:
            _end(child)
    lines = out.decode().splitlines()
    if child.returncode != 0 or not lines:
        raise MeasuredFailedError(f"{command[1]} ended with status {child.returncode}: {_quote(log)}")
    return lines[-1]


def _start(command: Sequence[str], folder: Path, errors: IO[bytes], environment: Mapping[str, str]) -> Child:
    env = {**os.environ, **environment}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=folder, env=env
    )


def _read(i: int, child: Child, lines: Lines) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put((i, line.decode(errors="replace").strip()))
    lines.put((i, None))


def _follow(children: Sequence[Child], lines: Lines, events: int, log: Path) -> list[Sample]:
    handled: list[int | None] = [None] * len(children)
    samples: list[Sample] = []
    while True:
        try:
            i, line = lines.get(timeout=STILL_SECONDS)
        except queue.Empty:
            still = f"nothing moved for {STILL_SECONDS:.0f} s after {handled} events"
            raise MeasuredFailedError(f"{still}: {_quote(log)}") from None
        if line is None:
            raise MeasuredFailedError(f"process {i + 1} ended after {handled[i]} of {events} events: {_quote(log)}")
        if not line.startswith("at "):
            continue
        handled[i] = int(line[3:])
        samples.append(Sample(time.perf_counter(), tuple(handled), tuple(cpu_seconds(c.pid) for c in children)))
        if (samples[-1].total or 0) >= events:
            return samples


def _end(child: Child) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _quote(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-12:]
    return "\n    ".join([f"see {log}", *lines])
