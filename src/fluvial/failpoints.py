"""Failpoints: named places in the code where tests let a process die, fail or stand still.

Off, and then of no cost worth measuring, unless FLUVIAL_FAILPOINTS names some: ``NAME=ACTION[@N]``, comma separated,
where the action happens at the n-th time (1 when left out) that the place is reached, and once only:

    FLUVIAL_FAILPOINTS="sink.between-write-and-commit=kill@3,worker.between-publish-and-ack=pause:2.5" fluvial run

``kill`` is SIGKILL, ``raise`` a `FailpointError`, ``pause:SECONDS`` lets the thread that got there stand still.
"""

import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fluvial.errors import FluvialError, SettingsError

VARIABLE = "FLUVIAL_FAILPOINTS"
NAMES = frozenset(
    {
        "worker.between-fold-and-publish",  # the state is ahead of what was published
        "worker.between-publish-and-ack",  # Kafka has the results, the source offset is not committed
        "checkpoint.amid-chunks",  # chunks are on their way, some may have arrived
        "checkpoint.between-chunks-and-manifest",  # all chunks are there, nothing names them
        "checkpoint.between-manifest-and-clean-up",  # the new one counts, the old one's chunks are still there
        "sink.between-write-and-commit",  # Cassandra has the rows, the offset is not committed
        "dead-letters.before-commit",  # dead letters are sent and marked, the transaction is open
        "dead-letters.after-commit",  # it is committed, nobody was told
        "publisher.before-delivery-report",  # Kafka may have the records, nobody was told
    }
)
_CLAUSE = re.compile(
    r"(?P<name>[a-z.-]+)=(?P<action>kill|raise|pause:(?P<seconds>[0-9]+(\.[0-9]+)?))(@(?P<at>[1-9][0-9]*))?"
)


class FailpointError(FluvialError):
    """What ``raise`` raises."""


@dataclass(slots=True)
class _Point:
    action: str
    seconds: float
    left: int


_armed: dict[str, _Point] = {}


def arm(environ: Mapping[str, str]) -> None:
    """Switch on the failpoints that the environment names, and those only.

    Raises:
        SettingsError: an unknown name, or not of the form above.
    """
    _armed.clear()
    for clause in filter(None, (c.strip() for c in environ.get(VARIABLE, "").split(","))):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise SettingsError(f"{VARIABLE}: {clause!r} is no failpoint", hint="NAME=kill|raise|pause:SECONDS[@N]")
        if found["name"] not in NAMES:
            raise SettingsError(
                f"{VARIABLE}: there is no failpoint {found['name']}", hint=f"known are {', '.join(sorted(NAMES))}"
            )
        action = found["action"].partition(":")[0]
        _armed[found["name"]] = _Point(action, float(found["seconds"] or 0), int(found["at"] or 1))


def hit(name: str) -> None:
    """Do what is asked for at this place, mostly nothing.

    Raises:
        FailpointError: when ``raise`` is asked for.
    """
    if _armed:
        _reach(name)


def _reach(name: str) -> None:
    point = _armed.get(name)
    if point is None:
        return
    point.left -= 1
    if point.left != 0:
        return
    if point.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if point.action == "raise":
        raise FailpointError(f"failpoint {name}", hint=f"{VARIABLE} asked for it")
    time.sleep(point.seconds)
