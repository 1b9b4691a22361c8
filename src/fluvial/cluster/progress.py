"""What a cluster that starts has to tell while it does so."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One thing to show: which subject (a server, or ``jars``), what it does, and how far it is.

    ``done`` and ``total`` count the same unit (jars, bytes); both are 0 when there is nothing to count.
    """

    subject: str
    message: str
    done: int = 0
    total: int = 0


Report = Callable[[Step], None]


def silent(step: Step) -> None:
    """Show nothing."""
