"""A TCP proxy between a client and a server, for cuts, delays and resets."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

CHUNK = 64 << 10


class Proxy:
    """Forwards connections from a port of this machine to a server. Its methods may be called from any thread.

    ``port`` is the port it listens on (0 in the constructor takes any). Use it as a context manager.
    """

    def __init__(self, server: tuple[str, int], port: int = 0, host: str = "127.0.0.1") -> None:
        self._server = server
        self._host = host
        self.port = port
        self.delay_seconds = 0.0
        self.connections = 0
        self._flowing: asyncio.Event
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._call(self._open()).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._call(self._close()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Let nothing through, and say nothing: connections stay open, packets vanish (new ones connect to silence)."""
        self._loop.call_soon_threadsafe(lambda: self._flowing.clear())

    def delay(self, seconds: float) -> None:
        """Hold what comes back so long (0: not at all)."""
        self.delay_seconds = seconds

    def reset(self) -> None:
        """Reset all connections (RST); new ones are served."""
        self._call(self._reset()).result(10)

    def half_close(self) -> None:
        """End the client's side of every connection as if the server had finished; what the client sends still goes on."""
        self._call(self._half_close()).result(10)

    def refuse(self) -> None:
        """Reset all connections, and every new one too."""
        self._refusing = True
        self.reset()

    def mend(self) -> None:
        """Let everything through again; what a cut held back arrives now."""
        self._refusing = False
        self.delay_seconds = 0.0
        self._loop.call_soon_threadsafe(lambda: self._flowing.set())

    async def _open(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reset()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        if self._refusing:
            _abort(writer)
            return
        self.connections += 1
        try:
            to_reader, to_writer = await asyncio.open_connection(*self._server)
        except OSError:
            _abort(writer)
            return
        self._writers.add(to_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, to_writer, delayed=False)),
            asyncio.create_task(self._pump(to_reader, writer, delayed=True)),
        ]
        try:
            await asyncio.gather(*pumps)
        except asyncio.CancelledError:
            pass  # the proxy closes
        finally:
            for pump in pumps:
                pump.cancel()
            for w in (writer, to_writer):
                self._writers.discard(w)
                w.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        """Copy one direction; delayed bytes keep their order and overlap, as on a long line."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        drain = asyncio.create_task(self._drain(line, writer))
        try:
            while True:
                data = await reader.read(CHUNK)
                line.put_nowait((self._loop.time() + (self.delay_seconds if delayed else 0.0), data))
                if not data:
                    break
            await drain
        except OSError:
            _abort(writer)
        finally:
            drain.cancel()

    async def _drain(self, line: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._flowing.wait()
            with contextlib.suppress(OSError, RuntimeError):
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)
        self._writers.clear()

    async def _half_close(self) -> None:
        for writer in list(self._writers):
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end."""
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
