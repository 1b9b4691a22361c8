"""Lasting names of a group's members: static membership that nobody has to configure.

Kafka keeps the partitions of a member that has such a name until its session times out, so one that is started again
within that time goes on without a rebalance, also after a kill. The name must be the same at the next start and never be
another process's. So it is kept in a file, which the process that uses it holds locked: the system lets go of the lock
when the process dies, and the next one of that group on this machine takes the name over.
"""

import fcntl
import os
import re
import secrets
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

AUTO = "auto"
_TOKEN = re.compile(r"[0-9a-f]{8}")


def names_folder(group: str) -> Path:
    """Return where the names of a group's members on this machine are kept, for this user."""
    return Path(tempfile.gettempdir()) / f"fluvial-{os.getuid()}-members" / quote(group, safe="")


class HeldName:
    """A member's name, `name`, which is nobody else's until `release`."""

    def __init__(self, folder: Path) -> None:
        """Take the first free name of a folder, or add one. Blocks, but not for long."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        slot = 0
        while True:
            handle = os.open(folder / str(slot), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                os.close(handle)
                slot += 1
        token = os.pread(handle, 64, 0).decode(errors="replace")
        if not _TOKEN.fullmatch(token):
            # Containers share a host's name: the token tells them apart.
            token = secrets.token_hex(4)
            os.ftruncate(handle, 0)
            os.pwrite(handle, token.encode(), 0)
        self._handle: int | None = handle
        self.name = f"{socket.gethostname()}-{token}"

    def release(self) -> None:
        """Let another process have the name."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        """Hold it while the block runs."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release it."""
        self.release()
