"""What a failed write means: try again, try again with less, look for the bad row, or stop."""

from enum import Enum

from cassandra import (
    CoordinationFailure,
    InvalidRequest,
    OperationTimedOut,
    Timeout,
    Unavailable,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionException
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import (
    CDCWriteException,
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
    ServerError,
    TruncateError,
)


class Verdict(Enum):
    """What to do about a failure."""

    RETRY = "retry"
    #: Retry, and send less at once.
    OVERLOADED = "overloaded"
    #: A row of the batch cannot be written, or the table has changed.
    INVALID = "invalid"
    #: No retry can mend it.
    REFUSED = "refused"


_OVERLOADED = (OperationTimedOut, Timeout, OverloadedErrorMessage, ConnectionBusy, NoConnectionsAvailable)
_RETRY = (
    Unavailable,
    CoordinationFailure,
    CDCWriteException,
    IsBootstrappingErrorMessage,
    ServerError,
    TruncateError,
    ConnectionException,
    OSError,
)


def verdict(error: BaseException) -> Verdict:
    """Classify what the driver raised; what is not known to pass by itself is refused.

    ``NoHostAvailable`` is as bad as the worst of its causes: the driver also wraps bugs of the caller in it.
    """
    if isinstance(error, NoHostAvailable):
        causes = list(error.errors.values()) if isinstance(error.errors, dict) else []
        found = {verdict(c) for c in causes if isinstance(c, BaseException)}
        refused = Verdict.REFUSED if Verdict.INVALID in found else None
        return refused or next((v for v in (Verdict.REFUSED, Verdict.OVERLOADED) if v in found), Verdict.RETRY)
    if isinstance(error, _OVERLOADED):
        return Verdict.OVERLOADED
    if isinstance(error, InvalidRequest):
        return Verdict.INVALID
    return Verdict.RETRY if isinstance(error, _RETRY) else Verdict.REFUSED


def describe(error: BaseException) -> str:
    """Return one line about a failure."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
