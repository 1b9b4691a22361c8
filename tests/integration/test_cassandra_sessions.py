"""Sessions on a real Cassandra: what they are set to, and what people are told when one cannot be had."""

import socket
import time
from pathlib import Path

import pytest
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT
from cassandra.policies import FallthroughRetryPolicy, RetryPolicy, TokenAwarePolicy

from fluvial.cassandra import CassandraError, connect, connected
from fluvial.settings import CassandraSettings

pytestmark = pytest.mark.integration


def changed(cassandra: CassandraSettings, **values: object) -> CassandraSettings:
    return cassandra.model_copy(update=values)


@pytest.mark.parametrize(
    ("purpose", "level", "retries"),
    [("write", ConsistencyLevel.QUORUM, FallthroughRetryPolicy), ("read", ConsistencyLevel.ONE, RetryPolicy)],
)
def test_a_session_has_its_purposes_consistency_and_retries(
    cassandra: CassandraSettings, purpose, level: int, retries: type
) -> None:
    settings = changed(
        cassandra, write_consistency="QUORUM", read_consistency="ONE", request_timeout_seconds=3.5, keyspace="x"
    )
    with connected(settings, purpose, keyspace="system") as session:
        profile = session.get_execution_profile(EXEC_PROFILE_DEFAULT)
        assert profile.consistency_level == level
        assert type(profile.retry_policy) is retries
        assert profile.request_timeout == 3.5
        assert isinstance(profile.load_balancing_policy, TokenAwarePolicy)
        assert not session.use_client_timestamp
        assert session.cluster.protocol_version == 5
        assert session.execute("SELECT cluster_name FROM local").one() is not None
    assert session.is_shutdown


def test_when_nobody_listens_it_is_said_soon_and_with_the_address(cassandra: CassandraSettings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(CassandraError, match=rf"no answer from Cassandra at 127.0.0.1 port {port} .*; `fluvial up`"):
        connect(changed(cassandra, contact_points="127.0.0.1", port=port), "read")
    assert time.monotonic() - begun < 20


def test_a_data_centre_that_does_not_exist_is_answered_with_those_that_do(cassandra: CassandraSettings) -> None:
    with pytest.raises(CassandraError, match=r"no data centre dc9; it has \w+; set cassandra.local_datacenter="):
        connect(changed(cassandra, local_datacenter="dc9"), "read")


def test_a_missing_keyspace_leads_to_init(cassandra: CassandraSettings) -> None:
    with pytest.raises(CassandraError, match=r"has no keyspace no_such_keyspace; `fluvial init`"):
        connect(cassandra, "read", keyspace="no_such_keyspace")


def test_a_ca_file_that_cannot_be_read_is_named(cassandra: CassandraSettings, tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(CassandraError, match=rf"ssl_ca_location {missing}: No such file"):
        connect(changed(cassandra, ssl_ca_location=missing), "read")
