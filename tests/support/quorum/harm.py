"""Harm that needs no rights: a clock that is wrong for one server, and a disk that takes no more from it."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluvial.cluster import LocalCluster
from support.quorum.brokers import pid_of

SHIM = Path(__file__).parent / "clock_shift.c"
COMPILER = shutil.which("cc")


@contextmanager
def wrong_clock(cluster: LocalCluster, name: str, seconds: int, folder: Path) -> Iterator[None]:
    """Start a server again with its wall clock off by so much, and with the right one afterwards; needs a C compiler."""
    assert COMPILER is not None
    shim = folder / "clock_shift.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(shim), str(SHIM), "-ldl"], check=True)
    cluster.stop_server(name)
    os.environ |= {"LD_PRELOAD": str(shim), "CLOCK_SHIFT_SECONDS": str(seconds)}
    try:
        cluster.start_server(name)
    finally:
        del os.environ["LD_PRELOAD"], os.environ["CLOCK_SHIFT_SECONDS"]
    try:
        yield
    finally:
        cluster.restart(name)


def fill_disk(cluster: LocalCluster, name: str) -> None:
    """Let a running server's files grow no more (EFBIG where a full disk says ENOSPC), until it is started again.

    A limit of the process instead of a small file system, which takes root to mount.
    """
    _, most = resource.prlimit(pid_of(cluster, name), resource.RLIMIT_FSIZE)
    resource.prlimit(pid_of(cluster, name), resource.RLIMIT_FSIZE, (0, most))
