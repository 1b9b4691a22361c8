"""How commands talk to a person: progress on stderr, so that stdout carries data only."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fluvial.cluster.progress import Report, Step


@contextmanager
def progress() -> Iterator["Report"]:
    """Yield a function that shows `Step`s: live lines with bars on a terminal, else one line per message."""
    if sys.stderr.isatty():
        with _live() as report:
            yield report
    else:
        yield _plain(time.monotonic())


def _plain(begun: float) -> "Report":
    """Count only in tenths, so that a log of a run stays short."""
    last: dict[str, int] = {}

    def report(step: "Step") -> None:
        if step.total:
            tenth = 10 * step.done // step.total
            if last.get(step.subject) == tenth:
                return
            last[step.subject] = tenth
        counted = f" ({step.done}/{step.total})" if step.total else ""
        sys.stderr.write(f"[{time.monotonic() - begun:5.1f} s] {step.subject}: {step.message}{counted}\n")
        sys.stderr.flush()

    return report


@contextmanager
def _live() -> Iterator["Report"]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    class Count(MofNCompleteColumn):
        def render(self, task):  # type: ignore[no-untyped-def]
            return super().render(task) if task.fields["counted"] else ""

    class Bar(BarColumn):
        def render(self, task):  # type: ignore[no-untyped-def]
            return super().render(task) if task.fields["counted"] else ""

    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.fields[subject]:<12} {task.description}"),
        Bar(),
        Count(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(step: "Step") -> None:
            if step.subject not in tasks:
                tasks[step.subject] = bars.add_task("", subject=step.subject, counted=False, total=1)
            finished = step.message.startswith("ready") or (step.total and step.done == step.total)
            bars.update(
                tasks[step.subject],
                description=step.message,
                counted=bool(step.total),
                total=step.total or 1,
                completed=(step.total or 1) if finished else step.done,
            )

        yield report


def columns(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows under headers; numbers (also written with commas) to the right."""
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    right = [all(row[i].replace(",", "").isdigit() or not row[i] for row in cells[1:]) for i in range(len(headers))]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    )


def print_error(message: str, hint: str) -> None:
    """Say on stderr what went wrong and what to do next."""
    typer.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    if hint:
        typer.secho("  Try: ", fg="yellow", nl=False, err=True)
        typer.echo(hint, err=True)
