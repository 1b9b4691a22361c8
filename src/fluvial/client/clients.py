"""The client for threads, and the one for asyncio around it."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fluvial.client.outbox import Durability, Outbox, Waiting, WhenFull
from fluvial.client.sending import Sender


class Client:
    """Sends events to a gateway, in order, over whatever happens in between.

    ``gateway`` is a URL or several (the next one is tried when one fails). ``buffer`` is a file that belongs to this client
    alone; at most ``most`` events wait in it, and ``when_full`` says what `send` does then: "wait", "refuse" (raise
    OutboxFullError) or "drop-oldest" (counted in ``dropped``). Batches go out after ``batch_events`` events or
    ``batch_seconds``. Events without a ``sequence`` get one that never repeats (``sequence_field`` None: leave them alone).
    ``durability`` "process" survives `kill -9`, "power" a power cut as well.
    """

    def __init__(
        self,
        gateway: str | Sequence[str],
        *,
        key: str,
        topic: str,
        buffer: str | Path = "fluvial-buffer.db",
        most: int = 1_000_000,
        when_full: WhenFull = "wait",
        batch_events: int = 500,
        batch_seconds: float = 1.0,
        timeout_seconds: float = 60.0,
        sequence_field: str | None = "sequence",
        durability: Durability = "process",
    ) -> None:
        """Open the buffer and begin to send what is in it.

        Raises:
            OutboxError: the buffer cannot be opened.
        """
        self.topic = topic
        self._outbox = Outbox(
            Path(buffer), most=most, when_full=when_full, sequence_field=sequence_field, durability=durability
        )
        gateways = [gateway] if isinstance(gateway, str) else list(gateway)
        self._sender = Sender(
            self._outbox, gateways, key, batch_events=batch_events, batch_seconds=batch_seconds, timeout_seconds=timeout_seconds
        )  # fmt: skip
        self._thread = threading.Thread(target=self._sender.run, name="fluvial-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.flush(10.0)
        self.close()

    def send(self, *events: Mapping[str, Any], topic: str | None = None) -> None:
        """Keep events on disk, to be sent; returns without waiting for the network.

        Raises:
            OutboxFullError: the buffer is full.
            ValueError, TypeError: an event is not JSON.
        """
        self._outbox.append(topic or self.topic, events)

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until everything is acknowledged (true), or the time is over (false: it stays in the buffer)."""
        return self._outbox.wait_until_empty(seconds)

    def close(self) -> None:
        """Stop sending; what waits stays in the buffer for the next start."""
        self._sender.close()
        self._thread.join()
        self._outbox.close()

    @property
    def waiting(self) -> int:
        """How many events are not acknowledged yet."""
        return self._outbox.waiting

    @property
    def dropped(self) -> int:
        """How many events were dropped, ever, because the buffer was full."""
        return self._outbox.dropped

    @property
    def acknowledged(self) -> int:
        """How many events were acknowledged since this client was made."""
        return self._sender.acknowledged

    @property
    def last_problem(self) -> str | None:
        """Why nothing can be sent at present, or None."""
        return self._sender.last_problem

    def rejected(self) -> list[tuple[Waiting, str]]:
        """Return the events that the gateway refused for good, with its reasons; they stay in the buffer's file."""
        return self._outbox.rejected()


class AsyncClient:
    """`Client` for asyncio: the same buffer, the same promises; ``options`` are those of `Client`."""

    def __init__(self, gateway: str | Sequence[str], *, key: str, topic: str, **options: Any) -> None:
        self._make = lambda: Client(gateway, key=key, topic=topic, **options)
        self._client: Client | None = None

    async def __aenter__(self) -> "AsyncClient":
        self._client = await asyncio.to_thread(self._make)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.flush(10.0)
        await asyncio.to_thread(self.client.close)

    @property
    def client(self) -> Client:
        """The client underneath, for its counts."""
        if self._client is None:
            raise RuntimeError("use `async with AsyncClient(…)`")
        return self._client

    async def send(self, *events: Mapping[str, Any], topic: str | None = None) -> None:
        """See `Client.send`."""
        await asyncio.to_thread(self.client.send, *events, topic=topic)

    async def flush(self, seconds: float | None = None) -> bool:
        """See `Client.flush`."""
        return await asyncio.to_thread(self.client.flush, seconds)
