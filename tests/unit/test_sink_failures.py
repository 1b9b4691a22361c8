"""Which failures pass by themselves and which never do."""

import pytest
from cassandra import (
    InvalidRequest,
    OperationTimedOut,
    Unauthorized,
    Unavailable,
    WriteFailure,
    WriteTimeout,
    WriteType,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.protocol import (
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
    ServerError,
    SyntaxException,
)

from fluvial.sinks.failures import Verdict, describe, verdict


def message(kind: type, text: str) -> BaseException:
    return kind(0, text, None)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unavailable("x"), Verdict.RETRY),
        (WriteFailure("x"), Verdict.RETRY),
        (ConnectionException("x"), Verdict.RETRY),
        (ConnectionShutdown("x"), Verdict.RETRY),
        (ConnectionResetError(), Verdict.RETRY),
        (message(ServerError, "x"), Verdict.RETRY),
        (message(IsBootstrappingErrorMessage, "x"), Verdict.RETRY),
        (NoHostAvailable("x", {"h": ConnectionException("down")}), Verdict.RETRY),
        (NoHostAvailable("x", {}), Verdict.RETRY),
        (WriteTimeout("x", write_type=WriteType.UNLOGGED_BATCH), Verdict.OVERLOADED),
        (OperationTimedOut(), Verdict.OVERLOADED),
        (message(OverloadedErrorMessage, "x"), Verdict.OVERLOADED),
        (InvalidRequest("x"), Verdict.INVALID),
        (Unauthorized("x"), Verdict.REFUSED),
        (message(SyntaxException, "x"), Verdict.REFUSED),
        (TypeError("x"), Verdict.REFUSED),
    ],
)
def test_every_failure_has_its_verdict(error: BaseException, expected: Verdict) -> None:
    assert verdict(error) is expected


def test_a_bug_that_the_driver_wraps_as_no_host_available_is_not_retried_for_ever() -> None:
    hosts = {"a": ConnectionException("down"), "b": TypeError("a bug")}
    assert verdict(NoHostAvailable("x", hosts)) is Verdict.REFUSED


def test_a_description_is_one_line() -> None:
    assert describe(InvalidRequest("first\n  second")) == "InvalidRequest: first second"
