"""Lets the bench's own tests import its modules, which stand side by side as `run.py` finds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
