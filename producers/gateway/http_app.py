"""The gateway's HTTP side: events in, health and metrics out."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib.resources import files

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fluvial.producers.gateway.bodies import Parsed, parse, unpacked
from fluvial.producers.gateway.gate import Answer, Gate, RefusedError
from fluvial.producers.gateway.keys import Grant
from fluvial.producers.gateway.metrics import GateMetrics
from fluvial.producers.gateway.problems import problem, refused
from fluvial.producers.gateway.repeats import Repeats

Authenticate = Callable[[str | None], Grant | None]
Ready = Callable[[], Awaitable[str | None]]
IN_THREAD_BYTES = 64 << 10
LONGEST_IDEMPOTENCY_KEY = 255


def http_app(gate: Gate, authenticate: Authenticate, ready: Ready, *, max_body_bytes: int) -> Starlette:
    """Return the ASGI application.

    ``authenticate`` turns an Authorization header into a grant (None: nobody we know); ``ready`` returns why the gateway
    is not ready, or None. ``max_body_bytes`` bounds a body before and after it is unpacked.
    """
    repeats: Repeats[Answer] = Repeats()
    registry = CollectorRegistry()
    registry.register(GateMetrics(gate))

    async def publish(request: Request) -> Response:
        grant = authenticate(request.headers.get("authorization"))
        if grant is None:
            return problem(401, "unauthenticated", "send Authorization: Bearer <key>; `fluvial keys add` makes one")
        try:
            return await _published(request, grant)
        except RefusedError as e:
            return refused(e)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _published(request: Request, grant: Grant) -> Response:
        body = await _body(request, max_body_bytes)
        topic = request.path_params["topic"]

        async def take() -> Answer:
            events, check = await _in_thread_if_large(body, request, max_body_bytes)
            return await gate.take(topic, grant, events, check)

        key = request.headers.get("idempotency-key")
        if key is None:
            return _answered(await take(), repeated=False)
        if not 0 < len(key) <= LONGEST_IDEMPOTENCY_KEY:
            raise RefusedError("invalid", "an Idempotency-Key has 1 to 255 characters", hint="use a UUID")
        answer, repeated = await repeats.once(f"{grant.name}\n{topic}\n{key}", body, take)
        return _answered(answer, repeated=repeated)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        why = "the gateway is shutting down" if gate.closing else await ready()
        return JSONResponse({"status": "ready"}) if why is None else problem(503, "not-ready", why)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(request: Request) -> Response:
        return JSONResponse(document("openapi.json"))

    async def asyncapi(request: Request) -> Response:
        return JSONResponse(document("asyncapi.json"))

    async def unknown(request: Request, error: Exception) -> Response:
        return problem(404, "unknown-path", f"there is nothing at {request.url.path}; see /openapi.json")

    async def wrong_method(request: Request, error: Exception) -> Response:
        response = problem(404, "unknown-path", f"{request.method} {request.url.path}: see /openapi.json")
        response.status_code = 405
        response.headers["Allow"] = "POST" if request.url.path.endswith("/events") else "GET"
        return response

    return Starlette(
        routes=[
            Route("/v1/topics/{topic}/events", publish, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            Route("/asyncapi.json", asyncapi),
        ],
        exception_handlers={404: unknown, 405: wrong_method},
    )


def document(name: str) -> dict[str, object]:
    """Return one of the API's own descriptions."""
    found: dict[str, object] = json.loads(files("fluvial.producers.gateway").joinpath(name).read_text())
    return found


async def _body(request: Request, limit: int) -> bytes:
    too_large = RefusedError("too-large", f"the body has more than {limit:,} bytes", hint="send smaller batches")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def _in_thread_if_large(body: bytes, request: Request, limit: int) -> Parsed:
    def work() -> Parsed:
        encoding = request.headers.get("content-encoding", "")
        return parse(unpacked(body, encoding, limit), request.headers.get("content-type", ""))

    if len(body) > IN_THREAD_BYTES or "content-encoding" in request.headers:
        return await asyncio.to_thread(work)
    return work()


def _answered(answer: Answer, *, repeated: bool) -> Response:
    rejected = [{"index": r.index, "kind": r.kind, "reason": r.reason} for r in answer.rejected]
    headers = {"Idempotent-Replayed": "true"} if repeated else {}
    if rejected and not answer.accepted:
        response = problem(422, "rejected", rejected[0]["reason"], accepted=0, rejected=rejected)  # type: ignore[arg-type]
        response.headers.update(headers)
        return response
    return JSONResponse({"accepted": answer.accepted, "rejected": rejected}, headers=headers)
