"""Shared test set-up: ``tests/support`` is importable as ``support``; server fixtures come from ``support.servers``."""

import sys
from pathlib import Path

import hypothesis

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["support.servers"]

# The first example of a test may compile a kernel.
hypothesis.settings.register_profile("fluvial", deadline=None)
hypothesis.settings.load_profile("fluvial")
