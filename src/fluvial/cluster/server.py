"""What the local cluster asks of each kind of server."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

JVM_OPTIONS = (
    # A server that is out of memory must end, not limp on.
    "-XX:+ExitOnOutOfMemoryError",
    # C2 waits for ten times the evidence: a third less CPU until ready, and hot paths get it all the same.
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
    "-Djava.awt.headless=true",
)


class NotReadyError(Exception):
    """The server does not answer yet; the message says what is missing."""


@dataclass(frozen=True)
class Launch:
    """A command line and what is added to the environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


class Server(Protocol):
    """One server process: how to set it up, start it, and tell that it serves."""

    @property
    def name(self) -> str:
        """``kafka-1``, ``cassandra-2``, ``registry``."""
        ...

    @property
    def ready_seconds(self) -> float:
        """How long a start may take on a slow, busy machine."""
        ...

    def prepare(self) -> None:
        """Write the configuration files, and format the storage when it is new."""
        ...

    def launch(self) -> Launch:
        """Return the command to run."""
        ...

    def check(self) -> None:
        """Use the server as a client would.

        Raises:
            NotReadyError: it does not serve yet.
        """
        ...


def require_listening(host: str, port: int) -> None:
    """Open and close a connection.

    Raises:
        NotReadyError: nobody listens.
    """
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as e:
        raise NotReadyError(f"{host}:{port} does not accept connections: {e.strerror or e}") from None


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write configuration files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
