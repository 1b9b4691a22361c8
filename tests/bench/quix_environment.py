"""A virtual environment for Quix Streams, whose confluent-kafka is another than ours."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

VERSION = "3.28.0"
PACKAGES = (f"quixstreams=={VERSION}", "fastavro")


class UnavailableError(Exception):
    """A peer cannot be had here; the message says why."""


def python(folder: Path, say: Callable[[str], None]) -> Path:
    """Return the interpreter of the environment, made on first use.

    Raises:
        UnavailableError: the packages cannot be installed.
    """
    interpreter = folder / "bin" / "python"
    if interpreter.exists() and _has_quix(interpreter):
        return interpreter
    say(f"installing Quix Streams {VERSION} into {folder}")
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise UnavailableError(f"Quix Streams cannot be installed: {lines[-1]}")
    return interpreter


def _has_quix(interpreter: Path) -> bool:
    probe = f"from importlib.metadata import version; assert version('quixstreams') == '{VERSION}'"
    return subprocess.run([str(interpreter), "-c", probe], capture_output=True, check=False).returncode == 0
