"""Running Faust apps until they end or a signal asks them to: drained and stopped in order."""

import asyncio
import signal
from collections.abc import Awaitable, Sequence

from fluvial.transport.app import BatchApp


async def run_apps(apps: Sequence[BatchApp], *until: Awaitable[None]) -> None:
    """Run apps in this loop until SIGINT or SIGTERM, until one of ``until`` is done, or until an app fails.

    Apps are stopped in the order given, each drained before the next: sources before sinks. After SIGTERM, which is how
    supervisors restart a service, static members stay in their groups for the session; otherwise they leave.

    Raises:
        Exception: whatever ended an app or an awaitable.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def asked_by(s: signal.Signals) -> None:
        if s is signal.SIGTERM:
            for app in apps:
                app.leaves_group = False
        asked.set()

    for s in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(s, asked_by, s)
    running = [asyncio.create_task(a.run()) for a in apps]
    ends = [asyncio.ensure_future(u) for u in until]
    waiting = asyncio.create_task(asked.wait())
    try:
        done, _ = await asyncio.wait([*running, *ends, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not waiting:
                task.result()
    finally:
        for s in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(s)
        for task in (waiting, *ends):
            task.cancel()
        for app, task in zip(apps, running, strict=True):
            if not task.done():
                await app.stop()
        results = await asyncio.gather(*running, return_exceptions=True)
    for r in results:
        if isinstance(r, Exception):
            raise r
