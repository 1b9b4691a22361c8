"""The installed script, as a user would run it."""

import sys
from pathlib import Path

FLUVIAL = Path(sys.executable).parent / "fluvial"
