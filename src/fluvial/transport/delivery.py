"""What is handed to the publisher, and what is heard of it afterwards."""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError

from fluvial.errors import PublishError


@dataclass(frozen=True, slots=True)
class OutRecord:
    """One record to publish, with headers; ``timestamp`` is in epoch ms, None lets the client set it."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    timestamp: int | None = None


class Delivery:
    """What became of the records of one `Publisher.publish`; await it.

    Raises:
        PublishError: a record was not acknowledged; it may or may not be in the log.
    """

    def __init__(self, topic: str, records: int, loop: asyncio.AbstractEventLoop) -> None:
        self.topic = topic
        self.records = records
        self.future: asyncio.Future[None] = loop.create_future()
        self.awaited = False
        self.failed = 0
        self.first_error: str | None = None
        self._open = records
        if records == 0:
            self.future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        self.awaited = True
        return asyncio.shield(self.future).__await__()

    def abandon(self, why: str) -> None:
        """Report every record that is still open as not acknowledged."""
        self.settle(self._open, self._open, why)

    def settle(self, records: int, failed: int, error: str | None) -> None:
        """Note that ``records`` more are settled, ``failed`` of them unacknowledged; call it on the loop only."""
        self._open -= records
        self.failed += failed
        self.first_error = self.first_error or error
        if self._open <= 0 and not self.future.done():
            if self.failed:
                self.future.set_exception(
                    PublishError(
                        f"{self.failed} of {self.records} records for {self.topic} were not acknowledged: "
                        f"{self.first_error}",
                        hint="they may or may not be in the log; publish them again where repeats are recognised",
                    )
                )
            else:
                self.future.set_result(None)


class Chunk:
    """Delivery reports of up to `CHUNK` records, counted on the publisher's thread and settled together."""

    __slots__ = ("bytes", "delivery", "error", "failed", "records", "refused", "reports", "settle", "settled")

    def __init__(self, settle: Callable[["Chunk"], None], delivery: Delivery, records: int, size: int) -> None:
        self.settle = settle
        self.delivery = delivery
        self.records = records
        self.bytes = size
        self.reports = 0
        self.refused = 0
        self.failed = 0
        self.error: str | None = None
        self.settled = False

    def reported(self, error: KafkaError | None, message: object) -> None:
        """Count one delivery report; called for every record."""
        if error is not None:
            self.failed += 1
            self.error = self.error or error.str()
        self.reports += 1
        if self.reports + self.refused == self.records:
            self.settle(self)

    def refuse(self, records: int, error: str) -> None:
        """Count records that the producer did not take; called at most once."""
        self.error = self.error or error
        self.refused = records
        if self.reports + self.refused >= self.records:
            self.settle(self)
