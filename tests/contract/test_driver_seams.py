"""What the sink relies on inside cassandra-driver: an upgrade that changes it fails here, loudly."""

import io

import cassandra
import numpy as np
import pytest
from cassandra.cluster import Cluster, ResponseFuture, Session
from cassandra.io.libevreactor import LibevConnection
from cassandra.protocol import BatchMessage, ProtocolHandler
from cassandra.query import BatchStatement, BatchType

from fluvial.schemas.declarations import Table
from fluvial.sinks.packed import PackedBatch, PackedBatchMessage, PackedProtocol, PackedRows
from fluvial.sinks.rows import RowBatches, row_batches
from fluvial.sinks.targets import result_target
from support.sink_rows import SMALL, columns_of, read_batches

QUORUM = cassandra.ConsistencyLevel.LOCAL_QUORUM


def made() -> RowBatches:
    rows = [("a", 60_000 * i, 1.5 * i, 0, i) for i in range(50)]
    columns, stamps = result_target(Table("small", ("sensor_id",), "day", retention_days=1)).rows(columns_of(rows))
    return row_batches(SMALL, columns, np.arange(50), stamps, now_ms=0, rows_per_batch=100)


def packed(batches: RowBatches) -> PackedBatch:
    return PackedBatch("tests", batches.routing[0], PackedRows(batches.counts[0], batches.body))


def driver_batch(batches: RowBatches) -> BatchStatement:
    """Return the same rows as the driver itself holds them."""
    statement = BatchStatement(BatchType.UNLOGGED)
    statement.keyspace = "tests"
    for cells in next(read_batches(batches)):
        statement._add_statement_and_params(True, SMALL.query_id, cells)
    return statement


def message(statement: BatchStatement) -> BatchMessage:
    """Make a message as ``Session._create_response_future`` does."""
    return BatchMessage(
        statement.batch_type, statement._statements_and_parameters, QUORUM, None, None, statement.keyspace
    )


@pytest.mark.parametrize("version", [4, 5])
def test_a_packed_batch_is_encoded_as_the_driver_encodes_the_same_rows(version: int) -> None:
    batches = made()
    ours, theirs = packed(batches), driver_batch(batches)
    if version < 5:
        ours.keyspace = theirs.keyspace = None
    encoded = PackedProtocol.encode_message(message(ours), 7, version, None, False)
    assert encoded == ProtocolHandler.encode_message(message(theirs), 7, version, None, False)


def test_other_messages_are_encoded_as_ever() -> None:
    theirs = message(driver_batch(made()))
    assert PackedProtocol.encode_message(theirs, 7, 5, None, False) == ProtocolHandler.encode_message(
        theirs, 7, 5, None, False
    )


def test_the_driver_begins_a_batch_with_kind_and_count_and_writes_the_rest_behind_the_rows() -> None:
    frame = io.BytesIO()
    BatchMessage(BatchType.UNLOGGED, (), QUORUM).send_body(frame, 5)
    assert frame.getvalue()[:3] == bytes([BatchType.UNLOGGED.value, 0, 0])


def test_a_packed_batch_cannot_go_through_a_session_without_the_packing_protocol() -> None:
    with pytest.raises(TypeError, match="client_protocol_handler"):
        ProtocolHandler.encode_message(message(packed(made())), 7, 5, None, False)


def test_a_packed_batch_is_unlogged_idempotent_and_routed() -> None:
    batches = made()
    statement = packed(batches)
    assert isinstance(statement, BatchStatement)
    assert statement.batch_type is BatchType.UNLOGGED
    assert statement.is_idempotent
    assert statement.routing_key == batches.routing[0]
    assert len(statement) == 50


def test_tracing_and_payload_survive_the_packing() -> None:
    original = message(packed(made()))
    original.tracing, original.custom_payload = True, {"a": b"b"}
    copy = PackedBatchMessage.of(original)
    assert (copy.tracing, copy.custom_payload, copy.opcode) == (True, {"a": b"b"}, original.opcode)


def test_the_session_hands_its_protocol_handler_to_every_request() -> None:
    assert hasattr(Session, "client_protocol_handler")
    assert hasattr(ResponseFuture, "_protocol_handler")
    assert ProtocolHandler.encode_message.__func__.__code__.co_varnames[:6] == (
        "cls",
        "msg",
        "stream_id",
        "protocol_version",
        "compressor",
        "allow_beta_protocol_version",
    )


def test_the_driver_uses_its_libev_loop_and_not_a_slower_one() -> None:
    assert Cluster.connection_class is LibevConnection


def test_the_version_is_the_one_whose_seams_were_read() -> None:
    assert cassandra.__version__ == "3.30.1"
