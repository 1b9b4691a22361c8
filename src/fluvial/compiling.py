"""`njit` for this package's kernels, with a compile cache that a change in any kernel makes anew.

numba's own cache looks only at the file of the compiled function: after a change in a *called* function of another file it
goes on using the old machine code, which gives wrong results or ends the process. So the cache's folder is named by a digest
of all kernel sources. It is in the user's cache directory; NUMBA_CACHE_DIR, where set, is left alone.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numba
from numba import njit

from fluvial.caches import cache_dir

__all__ = ["kernel_digest", "kernel_sources", "njit"]

FOLDERS = ("fluvial", "fluvial.schemas", "fluvial.producers", "fluvial.stream_apps", "fluvial.sinks")
# What marks a kernel's file: it takes `njit` from here. These have what kernels take from elsewhere: constants, intrinsics.
MARK = b"fluvial.compiling import"
TAKEN = frozenset({"layout.py", "prefetch.py"})
KEPT = 8


def kernel_sources() -> list[Path]:
    """Return the files whose content decides what the kernels do."""
    folders = {Path(p) for name in FOLDERS if (s := find_spec(name)) for p in s.submodule_search_locations or ()}
    files = sorted({f for folder in folders for f in folder.rglob("*.py")})
    return [f for f in files if f.name in TAKEN or MARK in f.read_bytes()]


def kernel_digest(files: Iterable[Path]) -> str:
    """Return a digest of the files' names and contents."""
    whole = hashlib.sha256(numba.__version__.encode())
    for f in files:
        whole.update(f"{f.name}:{f.stat().st_size}:".encode() + f.read_bytes())
    return whole.hexdigest()[:16]


def _use_own_cache() -> None:
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    kernels = cache_dir() / "kernels"
    mine = kernels / kernel_digest(kernel_sources())
    with contextlib.suppress(OSError):  # not writable: numba then finds another place
        if not mine.exists():
            mine.mkdir(parents=True)
            others = sorted((d for d in kernels.iterdir() if d != mine), key=lambda d: d.stat().st_mtime, reverse=True)
            for old in others[KEPT - 1 :]:
                shutil.rmtree(old, ignore_errors=True)
        numba.config.CACHE_DIR = str(mine)


_use_own_cache()
