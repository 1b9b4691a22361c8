"""Where messages come from: WebSockets, server-sent events, lines. One connection each; who asks reconnects."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import httpx
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from fluvial.errors import FluvialError
from fluvial.producers.feeds.posts import Found, jetstream, mastodon, plain, wikimedia

# A connection on which nothing comes for so long is dead, whatever TCP says.
SILENCE_SECONDS = 60.0
LARGEST_MESSAGE = 4 << 20
# On reconnecting, Jetstream should be asked for a little more than is missing; repeats are recognised.
REWIND_US = 5_000_000


class FeedBrokenError(FluvialError):
    """The connection broke, or was refused; connect again later."""


class Source(Protocol):
    """One feed. ``label`` names its cursor; ``endless`` ones never end by themselves."""

    label: str
    endless: bool

    def found(self, cursor: str | None) -> AsyncIterator[Found]:
        """Yield what comes after ``cursor``, as far as the feed can go back.

        Raises:
            FeedBrokenError: the connection ended.
        """
        ...


class Jetstream:
    """Bluesky's Jetstream, version 1: a WebSocket with ``cursor`` in microseconds."""

    endless = True

    def __init__(self, url: str) -> None:
        self.label = "bluesky"
        self._url = url

    async def found(self, cursor: str | None) -> AsyncIterator[Found]:
        """See `Source.found`."""
        asked = {"wantedCollections": "app.bsky.feed.post"}
        if cursor is not None:
            asked["cursor"] = str(int(cursor) - REWIND_US)
        try:
            async with connect(f"{self._url}?{urlencode(asked)}", max_size=LARGEST_MESSAGE, open_timeout=20) as socket:
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        text = await socket.recv()
                    yield jetstream(_loaded(text))
        except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake) as e:
            raise FeedBrokenError(f"{self._url}: {type(e).__name__}: {e}") from e


class ServerSentEvents:
    """A stream of server-sent events, resumed with Last-Event-ID. ``network`` says how to read it."""

    endless = True

    def __init__(self, network: str, url: str, token: str | None = None) -> None:
        self.label = self._network = network
        self._url = url
        self._headers = {"User-Agent": "fluvial"} | ({"Authorization": f"Bearer {token}"} if token else {})

    async def found(self, cursor: str | None) -> AsyncIterator[Found]:
        """See `Source.found`."""
        headers = self._headers | ({"Last-Event-ID": cursor} if cursor else {})
        timeout = httpx.Timeout(20, read=SILENCE_SECONDS)
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, follow_redirects=True) as http,
                aconnect_sse(http, "GET", self._url, headers=headers) as stream,
            ):
                if stream.response.status_code != 200:
                    raise FeedBrokenError(f"{self._url} answers {stream.response.status_code}")
                async with aclosing(stream.aiter_sse()) as events:
                    async for event in events:
                        yield self._meaning(event.event, event.data, event.id or None)
        except (httpx.HTTPError, ValueError) as e:
            raise FeedBrokenError(f"{self._url}: {type(e).__name__}: {e}") from e
        raise FeedBrokenError(f"{self._url}: the server ended the stream")

    def _meaning(self, kind: str, data: str, cursor: str | None) -> Found:
        if self._network == "mastodon":
            parsed = data if kind == "delete" else _loaded(data)
            return mastodon(kind, parsed, cursor, urlsplit(self._url).hostname or "")
        return wikimedia(_loaded(data), cursor)


class Lines:
    """NDJSON from a file or a command; the cursor is the number of lines read."""

    endless = False

    def __init__(self, label: str, *, path: Path | None = None, command: str | None = None) -> None:
        self.label = label
        self._path = path
        self._command = command

    async def found(self, cursor: str | None) -> AsyncIterator[Found]:
        """See `Source.found`."""
        skip = int(cursor or 0)
        if self._path is not None:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if number > skip and line.strip():
                        yield plain(_loaded(line), str(number))
            return
        process = await asyncio.create_subprocess_shell(
            self._command or "", stdout=asyncio.subprocess.PIPE, limit=LARGEST_MESSAGE
        )
        assert process.stdout is not None
        try:
            number = 0
            async for line in process.stdout:
                number += 1
                if number > skip and line.strip():
                    yield plain(_loaded(line), str(number))
            if await process.wait():
                raise FeedBrokenError(f"{self._command}: exit code {process.returncode}")
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def _loaded(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
