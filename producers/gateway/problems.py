"""Refusals as HTTP answers: RFC 9457 problem details."""

import math
from typing import Any

from starlette.responses import JSONResponse

from fluvial.producers.gateway.gate import Kind, RefusedError

STATUS: dict[Kind, int] = {
    "busy": 429, "unavailable": 503, "closing": 503, "denied": 403, "invalid": 400, "too-large": 413, "unknown-topic": 404,
}  # fmt: skip
TITLES: dict[int, str] = {
    400: "The request cannot be understood", 401: "Who are you?", 403: "The key may not do that", 404: "There is no such thing",
    409: "The same request is being worked on", 413: "Too large", 422: "No event was accepted", 429: "Too much at once",
    503: "Not now; send it again",
}  # fmt: skip


def problem(
    status: int, kind: str, detail: str, *, retry_after_seconds: float | None = None, **more: Any
) -> JSONResponse:
    """Return a problem; ``more`` are its extension members."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(max(1, math.ceil(retry_after_seconds)))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"type": f"urn:fluvial:problem:{kind}", "title": TITLES[status], "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def refused(e: RefusedError) -> JSONResponse:
    """Return a refusal as a problem."""
    return problem(STATUS[e.kind], e.kind, str(e), retry_after_seconds=e.retry_after_seconds)
