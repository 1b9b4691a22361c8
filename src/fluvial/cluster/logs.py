"""The lines of a server's log that say why it failed."""

import re
from pathlib import Path

QUOTED_LINES = 12
MAX_LINE = 240
_TROUBLE = re.compile(
    r"\b(ERROR|FATAL|SEVERE)\b|(^|\s|\.)\w*(Exception|Error)\b|^Error: |^Caused by|# .*fatal", re.ASCII
)
_FRAME = re.compile(r"^\s+(at |\.\.\. \d+ more|~\[)")


def relevant_lines(text: str, limit: int = QUOTED_LINES) -> list[str]:
    """Return at most ``limit`` lines: the last that report trouble, else simply the last; never stack frames."""
    lines = [line[:MAX_LINE].rstrip() for line in text.splitlines() if line.strip() and not _FRAME.match(line)]
    trouble = [line for line in lines if _TROUBLE.search(line)]
    return (trouble or lines)[-limit:]


def quote(log: Path) -> str:
    """Return the log's relevant lines, indented, for an error message; empty when there are none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in relevant_lines(text))


def rotate(log: Path) -> None:
    """Keep the log of the run before as ``<name>.1`` and begin a new one."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
