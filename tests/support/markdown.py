"""Pages that are executed: files to write and commands to run, in the order of their fenced blocks.

A block with ``title="path"`` is a file. In a block that begins with ```` ```console run ```` each line after ``$`` is a
command, and what follows is its output, where … stands for anything and times, rates and ports for any others.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S)
_TITLE = re.compile(r'title="([^"]+)"')
_ANYTHING = "…"
_VARYING = (
    (re.compile(r"^\[ *[\d.]+ s\] .*\n", re.M), ""),
    (re.compile(r"[\d.,]+ s, [\d,]+ events/s"), "(time and rate)"),
    (re.compile(r"127\.0\.0\.1(:| port )\d+"), "(address)"),
    (re.compile(r"\S+/\.fluvial\b"), "(folder)"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"), "(now)"),
)


@dataclass(frozen=True, slots=True)
class File:
    """A block with a title: a file and its text."""

    path: str
    text: str

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        path = folder / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Command:
    """A command and the output that the page shows for it."""

    line: str
    output: str

    def run(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Run the command; fail when it does, or when it prints something else than the page shows."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self.line],
            env=dict(environment),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{self.line}\n{done.stdout}\n{done.stderr}"
        # Logs and progress go to stderr: a page shows what is printed, or what is logged.
        printed = done.stdout if done.stdout.strip() else done.stderr
        assert self.matches(printed), f"{self.line} printed\n{printed}\nand the page shows\n{self.output}"

    def matches(self, printed: str) -> bool:
        """Whether what was printed is what the page shows."""
        shown = ".*".join(re.escape(part) for part in re.split(rf"{_ANYTHING}\n?", _settled(self.output)))
        return re.fullmatch(shown, _settled(printed), re.S) is not None


def steps(page: Path) -> Iterator[File | Command]:
    """Yield the files and commands of a page."""
    for block in _FENCE.finditer(page.read_text(encoding="utf-8")):
        if title := _TITLE.search(block["info"]):
            yield File(title[1], block["body"])
        elif block["info"] == "console run":
            yield from _commands(block["body"])


def _commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        line, _, output = re.sub(r" *\\\n *", " ", part).partition("\n")
        yield Command(line.strip(), output)


def _settled(text: str) -> str:
    for varying, name in _VARYING:
        text = varying.sub(name, text)
    return text.strip()
