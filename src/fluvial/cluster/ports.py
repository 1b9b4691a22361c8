"""Free TCP ports, chosen so that a data directory keeps the ports it had."""

import errno
import random
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from fluvial.errors import ClusterError

# Below the ports that systems hand to outgoing connections (Linux from 32768, macOS from 49152).
FIRST_PORT, LAST_PORT = 20_000, 32_000
TRIES = 200


def is_free(port: int, hosts: Sequence[str] = ("127.0.0.1",)) -> bool:
    """Say whether a server could listen on ``port`` at every one of ``hosts``.

    Raises:
        ClusterError: a host is no address of this machine.
    """
    for host in hosts:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
            try:
                s.bind((host, port))
            except OSError as e:
                if e.errno == errno.EADDRNOTAVAIL:
                    raise ClusterError(
                        f"{host} is not an address of this machine", hint=f"on macOS: sudo ifconfig lo0 alias {host}"
                    ) from None
                return False
    return True


class PortPicker:
    """Hands out ports that are free now and were not handed out before."""

    def __init__(self, taken: Iterable[int] = (), *, seed: int | None = None) -> None:
        self._taken = set(taken)
        self._random = random.Random(seed)  # noqa: S311 -- spreads clusters over ports, nothing secret

    def pick(self, wanted: Iterable[int] = (), hosts: Sequence[str] = ("127.0.0.1",)) -> int:
        """Return the first of ``wanted`` that is free at every host, else any free port.

        Raises:
            ClusterError: no port is free.
        """
        anywhere = (self._random.randint(FIRST_PORT, LAST_PORT) for _ in range(TRIES))
        for port in (*wanted, *anywhere):
            if port not in self._taken and is_free(port, hosts):
                self._taken.add(port)
                return port
        raise ClusterError(
            f"no free port between {FIRST_PORT} and {LAST_PORT} at {', '.join(hosts)}", hint="stop what uses them"
        )


def listener_of(port: int) -> str:
    """Describe the process that listens on ``port``, as far as this user may see it; empty when unknown."""
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in (line.split() for line in _lines(Path("/proc/net") / table)[1:])
        if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port
    }
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            target = link.readlink().name
        except OSError:
            continue
        if target.removeprefix("socket:[").removesuffix("]") in inodes:
            process = link.parts[2]
            command = "".join(_lines(Path("/proc") / process / "comm"))
            return f"pid {process} ({command})"
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
