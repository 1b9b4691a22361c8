"""Where fluvial keeps what it can make again: servers' jars, compiled kernels."""

import os
from collections.abc import Mapping
from pathlib import Path


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return FLUVIAL_CACHE_DIR, or ``fluvial`` under XDG_CACHE_HOME or ``~/.cache``."""
    if named := environ.get("FLUVIAL_CACHE_DIR"):
        return Path(named)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluvial"
