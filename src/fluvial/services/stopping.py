"""SIGINT and SIGTERM as an event that a service waits for."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_to_stop() -> Iterator[asyncio.Event]:
    """Give an event that is set by SIGINT or SIGTERM while the block runs; inside an event loop."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for s in SIGNALS:
        loop.add_signal_handler(s, asked.set)
    try:
        yield asked
    finally:
        for s in SIGNALS:
            loop.remove_signal_handler(s)
