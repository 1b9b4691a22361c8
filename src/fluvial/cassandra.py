"""Sessions of Cassandra: load balancing, TLS, credentials, consistency and timeouts, for everything that asks it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from cassandra import AuthenticationFailed, ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    FallthroughRetryPolicy,
    RetryPolicy,
    TokenAwarePolicy,
)

from fluvial.errors import FluvialError
from fluvial.settings import CassandraSettings

CONNECT_SECONDS = 5.0
HEARTBEAT_SECONDS = 10.0
RECONNECT_SECONDS = (0.5, 10.0)
# Version 5 (Cassandra 4.0 and later) has checksums; naming it saves negotiating, one connection per version.
PROTOCOL_VERSION = 5

Purpose = Literal["read", "write"]


class CassandraError(FluvialError):
    """Cassandra cannot be reached, does not let us in, or lacks the keyspace."""


def connect(settings: CassandraSettings, purpose: Purpose, *, keyspace: str | None = None) -> Any:
    """Connect and return a driver session; `close` it. ``keyspace`` None chooses none.

    Writers get their own errors back at once and retry themselves, with the same write timestamps; readers leave a
    retry on the next replica to the driver. No statement gets a client timestamp.

    Raises:
        CassandraError: no contact point answers, credentials or data centre are wrong, or the keyspace is missing.
    """
    hosts = [h.strip() for h in settings.contact_points.split(",") if h.strip()]
    where = f"{settings.contact_points} port {settings.port}"
    cluster = Cluster(
        hosts,
        port=settings.port,
        protocol_version=PROTOCOL_VERSION,
        compression=False,
        connect_timeout=CONNECT_SECONDS,
        control_connection_timeout=CONNECT_SECONDS,
        idle_heartbeat_interval=HEARTBEAT_SECONDS,
        idle_heartbeat_timeout=HEARTBEAT_SECONDS,
        reconnection_policy=ExponentialReconnectionPolicy(*RECONNECT_SECONDS, max_attempts=None),
        execution_profiles={EXEC_PROFILE_DEFAULT: _profile(settings, purpose)},
        auth_provider=_auth(settings),
        ssl_context=_tls(settings),
    )
    try:
        try:
            session = cluster.connect()
        except NoHostAvailable as e:
            _require_datacenter(cluster, settings, where)
            raise _refused(e, settings, where) from None
        if keyspace is not None:
            if keyspace not in cluster.metadata.keyspaces:
                raise CassandraError(
                    f"Cassandra at {where} has no keyspace {keyspace}", hint="`fluvial init` creates it and its tables"
                )
            session.set_keyspace(keyspace)
    except BaseException:
        cluster.shutdown()
        raise
    session.use_client_timestamp = False
    return session


def close(session: Any) -> None:
    """Close a session and its connections."""
    session.cluster.shutdown()


@contextmanager
def connected(settings: CassandraSettings, purpose: Purpose, *, keyspace: str | None = None) -> Iterator[Any]:
    """Connect for the length of a ``with`` block; see `connect`."""
    session = connect(settings, purpose, keyspace=keyspace)
    try:
        yield session
    finally:
        close(session)


def _profile(settings: CassandraSettings, purpose: Purpose) -> ExecutionProfile:
    level = settings.write_consistency if purpose == "write" else settings.read_consistency
    return ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(
            DCAwareRoundRobinPolicy(local_dc=settings.local_datacenter), shuffle_replicas=True
        ),
        retry_policy=FallthroughRetryPolicy() if purpose == "write" else RetryPolicy(),
        consistency_level=ConsistencyLevel.name_to_value[level],
        request_timeout=settings.request_timeout_seconds,
    )


def _auth(settings: CassandraSettings) -> PlainTextAuthProvider | None:
    if settings.username is None:
        return None
    password = settings.password.get_secret_value() if settings.password else ""
    return PlainTextAuthProvider(settings.username, password)


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    if settings.ssl_ca_location is None:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ssl_ca_location)
    except OSError as e:
        raise CassandraError(
            f"cassandra.ssl_ca_location {settings.ssl_ca_location}: {e.strerror or e}", hint="name a PEM file of the CA"
        ) from None


def _refused(error: NoHostAvailable, settings: CassandraSettings, where: str) -> CassandraError:
    causes = error.errors if isinstance(error.errors, dict) else {}
    if any(isinstance(c, AuthenticationFailed) for c in causes.values()):
        return CassandraError(
            f"Cassandra at {where} refuses the user {settings.username or '(none)'}",
            hint="set cassandra.username and cassandra.password",
        )
    reasons = "; ".join(f"{host}: {cause}" for host, cause in causes.items()) or str(error)
    return CassandraError(
        f"no answer from Cassandra at {where} ({reasons})",
        hint="`fluvial up` starts a local one, `fluvial status` shows it",
    )


def _require_datacenter(cluster: Cluster, settings: CassandraSettings, where: str) -> None:
    """Raise if the cluster answered, but has no node where the load balancing looks for one."""
    found = sorted({h.datacenter for h in cluster.metadata.all_hosts() if h.datacenter})
    if found and settings.local_datacenter not in found:
        raise CassandraError(
            f"Cassandra at {where} has no data centre {settings.local_datacenter}; it has {', '.join(found)}",
            hint=f"set cassandra.local_datacenter={found[0]}",
        )
