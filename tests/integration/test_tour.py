"""The tours of the README and of the first tutorial, from an empty folder: every command, and what it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.markdown import Command, steps

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-steps.md"])
def test_a_tour_prints_what_the_page_shows(page: str, tmp_path: Path) -> None:
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("FLUVIAL_") or k in ("FLUVIAL_CACHE_DIR", "FLUVIAL_JAVA")
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "LINES": "24",
        "FLUVIAL_LOG_FORMAT": "text",
    }
    commands = [step for step in steps(ROOT / page) if isinstance(step, Command)]
    try:
        for command in commands:
            command.run(tmp_path, environment)
    finally:
        subprocess.run(["fluvial", "down", "--delete"], cwd=tmp_path, env=environment, check=True, timeout=120)
    asked = [c.line.split()[1] for c in commands]
    assert (asked[0], "query" in asked) == ("up", True)
