"""The seam in cassandra-driver: a batch whose rows are bytes already.

`PackedBatch` is a ``BatchStatement``, so that routing, timeouts and callbacks are the driver's own; `PackedProtocol`
writes its rows into the message as they are, where the driver would write every cell by itself. What this relies on is
held by tests/contract/test_driver_seams.py.
"""

import io
from collections.abc import Iterator
from typing import Any

from cassandra.protocol import BatchMessage, ProtocolHandler
from cassandra.query import BatchStatement, BatchType

_KIND_AND_COUNT = 3


class PackedRows:
    """Rows of a BATCH message, already in the protocol's form, in the place of the driver's list of tuples."""

    __slots__ = ("body", "count")

    def __init__(self, count: int, body: memoryview) -> None:
        self.count = count
        self.body = body

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("packed rows are bytes: the session needs PackedProtocol as its client_protocol_handler")


class PackedBatch(BatchStatement):  # type: ignore[misc]
    """An unlogged, idempotent batch of packed rows of one partition."""

    def __init__(self, keyspace: str, routing_key: bytes, rows: PackedRows) -> None:
        super().__init__(BatchType.UNLOGGED)
        self.keyspace = keyspace
        self.is_idempotent = True
        self._routing_key = routing_key
        self._statements_and_parameters = rows


class PackedBatchMessage(BatchMessage):  # type: ignore[misc]
    """A BATCH message of packed rows."""

    queries: Any

    @classmethod
    def of(cls, message: BatchMessage) -> "PackedBatchMessage":
        """Return the packed message of what the driver made of a `PackedBatch`."""
        packed = cls(
            message.batch_type,
            message.queries,
            message.consistency_level,
            message.serial_consistency_level,
            message.timestamp,
            message.keyspace,
        )
        packed.tracing = message.tracing
        packed.custom_payload = message.custom_payload
        return packed

    def send_body(self, f: Any, protocol_version: int) -> None:
        """Write kind and count, the rows as they are, and what the driver writes behind rows."""
        rows = self.queries
        frame = io.BytesIO()
        self.queries = ()
        try:
            super().send_body(frame, protocol_version)
        finally:
            self.queries = rows
        f.write(frame.getvalue()[:1] + rows.count.to_bytes(_KIND_AND_COUNT - 1, "big"))
        f.write(rows.body)
        f.write(frame.getvalue()[_KIND_AND_COUNT:])


class PackedProtocol(ProtocolHandler):  # type: ignore[misc]
    """The driver's protocol handler, which also encodes packed batches; a session's ``client_protocol_handler``."""

    @classmethod
    def encode_message(
        cls, msg: Any, stream_id: int, protocol_version: int, compressor: Any, allow_beta_protocol_version: bool
    ) -> Any:
        """Encode a message; see the driver's ``ProtocolHandler``."""
        if isinstance(msg, BatchMessage) and isinstance(msg.queries, PackedRows):
            msg = PackedBatchMessage.of(msg)
        return super().encode_message(msg, stream_id, protocol_version, compressor, allow_beta_protocol_version)
