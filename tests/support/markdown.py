"""The fenced blocks of a Markdown page: files to write and commands to run, in their order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^```(?P<kind>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<body>.*?)^```$", re.M | re.S)
_ANYTHING = "…"


@dataclass(frozen=True, slots=True)
class File:
    """A block with a title: a file and its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A line after ``$`` of a ``console`` block, and the output that the page shows for it (empty: none is shown)."""

    line: str
    output: str

    def matches(self, printed: str) -> bool:
        """Whether what was printed is what the page shows, where … stands for anything."""
        shown = ".*".join(re.escape(part) for part in self.output.strip().split(_ANYTHING))
        return re.fullmatch(shown, printed.strip(), re.S) is not None


def steps(page: str) -> Iterator[File | Command]:
    """Yield the files and commands of a page."""
    for block in _FENCE.finditer(page):
        if block["title"]:
            yield File(block["title"], block["body"])
        elif block["kind"] == "console":
            yield from _commands(block["body"])


def _commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        while part.split("\n", 1)[0].endswith("\\"):
            part = part.replace("\\\n", "", 1)
        line, _, output = part.partition("\n")
        yield Command(re.sub(r"\s+", " ", line).strip(), output)
