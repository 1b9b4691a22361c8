"""Shared test set-up: ``tests/support`` is importable as ``support``; server fixtures come from ``support.servers``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["support.servers"]
