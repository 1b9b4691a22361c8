"""Writes the generated pages of docs/reference from the code: ``python docs/generate.py``.

cli.md comes from the commands' own functions, settings.md from the settings' classes, topics-and-schemas.md from the
shipped declarations. A test holds the pages to the code.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generated import commands, settings, topics

REFERENCE = Path(__file__).parent / "reference"


def pages() -> dict[Path, str]:
    """Return the text of every generated page by its path."""
    return {
        REFERENCE / "cli.md": commands.page(),
        REFERENCE / "settings.md": settings.page(),
        REFERENCE / "topics-and-schemas.md": topics.page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
