"""An asyncio event loop whose time is virtual, and processes in it that can be killed or paused between two steps.

The product's code runs on it unchanged. What belongs to which process is told by a context variable that every task and
callback inherits: killing a process drops all of its callbacks from then on (no ``finally`` is run, as with SIGKILL),
pausing it keeps them back (as with SIGSTOP) until it is resumed. There is one thread, and ties are broken by the order
in which things were asked for, so a run is a function of what is done in it.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from typing import Any

from support.simulated.trace import Trace

_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)
#: The context of servers, networks and clocks: no process's death or pause touches what is called in it.
OUTSIDE = contextvars.copy_context()


class StuckError(Exception):
    """Nothing will ever happen again, or too much did."""


class Unwinding(BaseException):
    """Unwinds what is left of a step in which its process was killed."""


class Process:
    """One operating-system process: a name, and a context that its tasks and callbacks carry."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.world: Any = None
        self.paused = False
        self.was_paused = False
        self.held: list[asyncio.Handle] = []
        self.ended: asyncio.Future[BaseException | None] = loop.create_future()
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the process's main coroutine; whatever it ends with ends the process."""
        task = self.loop.create_task(main(), context=self.context)
        task.add_done_callback(self._main_ended, context=OUTSIDE)

    def kill(self, why: BaseException | None = None) -> None:
        """End it between two steps: nothing of it is run any more."""
        if self.alive:
            self.alive = False
            self.held.clear()
            self.ended.set_result(why)

    def pause(self) -> None:
        """Keep everything of it back."""
        self.paused = self.was_paused = True

    def resume(self) -> None:
        """Let it go on; for it, no time has passed but that of its clock."""
        self.paused = False
        self.loop.ready_again(self.held)
        self.held = []

    def _main_ended(self, task: "asyncio.Task[None]") -> None:
        if self.alive:
            self.kill(asyncio.CancelledError() if task.cancelled() else task.exception())


def current_process() -> Process | None:
    """Return the process whose code is running; None outside of all."""
    return _PROCESS.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. Time stands still while anything can be done, and jumps to the next thing that is due."""

    def __init__(self, trace: Trace, *, most_steps: int = 80_000) -> None:
        super().__init__()
        self._now = 0.0
        self._steps = 0
        self._most_steps = most_steps
        #: What callbacks raised: nothing may.
        self.crashes: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.executor_seconds: Callable[[], float] = lambda: 0.001
        self.trace = trace
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """Return the virtual time in seconds, from 0."""
        return self._now

    def ready_again(self, handles: list[asyncio.Handle]) -> None:
        """Run these callbacks after those that are ready."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """Call soon: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """Call the function a little later, at once and undisturbed, in the caller's process."""
        future = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as e:
                future.set_exception(e)

        self.call_later(self.executor_seconds(), call)
        return future

    def end(self) -> None:
        """Close every coroutine that is left, and the loop."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._shut(task.get_coro())
        self._tasks.clear()
        self.close()

    def _shut(self, coroutine: Any) -> None:
        # As a killed process's, its `finally` may await; nobody is there to answer.
        for _ in range(100):
            try:
                coroutine.close()
            except RuntimeError:
                continue
            except BaseException:
                return
            return

    def _make_task(self, loop: Any, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=loop, **options)
        self._tasks.append(task)
        return task

    def _failed(self, loop: Any, context: dict[str, Any]) -> None:
        # What was "never retrieved" is told when memory is collected: not at a time of the run's.
        if "handle" in context and not isinstance(context.get("exception"), Unwinding):
            self.crashes.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            if not scheduled:
                raise StuckError("nothing is ready and nothing is due")
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._now = max(self._now, handle._when)
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)
            if process is not None:
                if not process.alive:
                    continue
                if process.paused:
                    process.held.append(handle)
                    continue
            self._steps += 1
            handle._run()
        if self._steps > self._most_steps:
            raise StuckError(f"{self._steps} steps until {self._now:.1f} s and no end")

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError("there is no input or output")

    def _write_to_self(self) -> None:
        pass
