"""Idempotency-Key: the answer to a request that was answered already, without doing it again."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Generic, TypeVar

from fluvial.producers.gateway.gate import RefusedError

T = TypeVar("T")


class ConflictError(RefusedError):
    """The key was used for another request."""


class Repeats(Generic[T]):
    """Remembers up to ``most`` answers for ``seconds``; of this process only.

    Elsewhere, and later, a repeat is recognised downstream by the identity of its events.
    """

    def __init__(self, most: int = 10_000, seconds: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, bytes, asyncio.Future[T]]] = OrderedDict()

    async def once(self, key: str, body: bytes, do: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Return the answer, and whether it is that of an earlier request; only success is remembered.

        Raises:
            ConflictError: the key came with another body.
        """
        self._forget()
        digest = blake2b(body, digest_size=16).digest()
        known = self._known.get(key)
        if known is not None:
            if known[1] != digest:
                raise ConflictError("invalid", "this Idempotency-Key was used with another body", hint="use a new key")
            return await asyncio.shield(known[2]), True
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._known[key] = (self._clock(), digest, future)
        try:
            answer = await do()
        except BaseException as e:
            del self._known[key]
            future.set_exception(
                e if isinstance(e, Exception) else RefusedError("unavailable", "the request was cut off")
            )
            future.exception()  # nobody may have waited for it
            raise
        future.set_result(answer)
        return answer, False

    def _forget(self) -> None:
        now = self._clock()
        while self._known:
            key, (then, _, future) = next(iter(self._known.items()))
            if not future.done() or (len(self._known) <= self._most and now - then < self._seconds):
                return
            del self._known[key]
