"""Asks for a group's positions until told to stop: ``python ask_positions.py BROKERS GROUP TOPIC FILE``."""

import contextlib
import sys
from pathlib import Path

from fluvial.errors import TransportError
from fluvial.services.progress import GroupProgress
from fluvial.settings import KafkaSettings


def main(brokers: str, group: str, topic: str, file: str) -> None:
    """Ask until the file is there."""
    n = 0
    while not Path(file).exists():
        with contextlib.suppress(TransportError):
            GroupProgress(KafkaSettings(brokers=brokers)).positions(f"{group}-{n}", [topic])
        n += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
