"""What an agent of a batch topic is handed: all that one fetch brought of one partition, still in Kafka's bytes."""

from collections.abc import Callable

import numpy as np

from fluvial.records import I64, Mask, RecordColumns


class FetchedBatch:
    """The record batches of one fetched partition, from ``first_offset`` up to (not including) ``next_offset``.

    An agent gets one of these per fetch. It may hold no record at all (control batches, aborted transactions): handle
    it like any other, so that its offsets are committed too. It is acknowledged when the agent's ``async for`` asks for
    the next one, and never when the agent raises, returns or is cancelled.

    To finish a batch later than that, ``hold`` it in the loop's body (or iterate ``stream.noack()``) and ``ack`` it
    when its effects are durable. Batches may be finished in any order; only the contiguous finished prefix of a
    partition is ever committed.
    """

    __slots__ = (
        "_acknowledge",
        "_columns",
        "_log_append_time",
        "first_offset",
        "held",
        "next_offset",
        "partition",
        "size_bytes",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        first_offset: int,
        next_offset: int,
        size_bytes: int,
        columns: Callable[[], RecordColumns],
        log_append_time: Callable[[I64], Mask] | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.first_offset = first_offset
        self.next_offset = next_offset
        self.size_bytes = size_bytes
        self.held = False
        self._columns = columns
        self._log_append_time = log_append_time
        self._acknowledge: Callable[[], None] | None = None

    def columns(self) -> RecordColumns:
        """Verify, decompress and parse the records; meant to run in a thread (it releases the interpreter's lock).

        Rows are the committed data records at or after ``first_offset``, in offset order; each call parses anew.

        Raises:
            CorruptRecordBatchError: a checksum does not match or a batch cannot be parsed. Let it stop the worker.
        """
        return self._columns()

    def log_append_time(self, offset: I64) -> Mask:
        """Return at which of its records' offsets the timestamp is the broker's, not the producer's."""
        if self._log_append_time is None:
            return np.zeros(len(offset), np.bool_)
        return self._log_append_time(offset)

    def handle(self) -> "FetchedBatch":
        """Return the same batch with a holding and an acknowledgement of its own: one per stream."""
        return FetchedBatch(
            self.topic,
            self.partition,
            self.first_offset,
            self.next_offset,
            self.size_bytes,
            self._columns,
            self._log_append_time,
        )

    def bind(self, acknowledge: Callable[[], None] | None) -> None:
        """Say what `ack` does (the stream does this when it hands the batch to its agent)."""
        self._acknowledge = acknowledge

    def hold(self) -> None:
        """Take over the acknowledgement: the batch stays unacknowledged until `ack`."""
        self.held = True

    def ack(self) -> None:
        """Acknowledge a held batch, on the app's event loop; nothing happens when a rebalance took it away."""
        if self._acknowledge is not None:
            acknowledge, self._acknowledge = self._acknowledge, None
            acknowledge()

    def __repr__(self) -> str:
        return f"<{self.topic}[{self.partition}] offsets {self.first_offset}..{self.next_offset - 1}>"
