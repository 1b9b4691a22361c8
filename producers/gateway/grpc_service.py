"""The gateway's gRPC side: `fluvial.v1.Ingest`, health and reflection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from fluvial.producers.gateway.gate import Check, Gate, Kind, RefusedError
from fluvial.producers.gateway.intake import Checked, TopicIntake, framed
from fluvial.producers.gateway.keys import Grant
from fluvial.producers.gateway.typed import EVENTS, columns_of_posts, columns_of_readings
from fluvial.schemas import ingest_pb2 as pb
from fluvial.schemas import ingest_pb2_grpc

Authenticate = Callable[[str | None], Grant | None]
SERVICE = pb.DESCRIPTOR.services_by_name["Ingest"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
CODES: dict[Kind, grpc.StatusCode] = {
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED, "unavailable": grpc.StatusCode.UNAVAILABLE,
    "closing": grpc.StatusCode.UNAVAILABLE,
    "denied": grpc.StatusCode.PERMISSION_DENIED, "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "too-large": grpc.StatusCode.RESOURCE_EXHAUSTED, "unknown-topic": grpc.StatusCode.NOT_FOUND,
}  # fmt: skip
STATUSES: dict[Kind, pb.PublishResponse.Status] = {
    "busy": pb.PublishResponse.BUSY, "unavailable": pb.PublishResponse.UNAVAILABLE, "closing": pb.PublishResponse.UNAVAILABLE,
    "denied": pb.PublishResponse.DENIED, "invalid": pb.PublishResponse.INVALID, "too-large": pb.PublishResponse.INVALID,
    "unknown-topic": pb.PublishResponse.INVALID,
}  # fmt: skip


class Ingest(ingest_pb2_grpc.IngestServicer):
    """The service. ``window_bytes`` bounds what one stream may have unacknowledged."""

    def __init__(self, gate: Gate, authenticate: Authenticate, *, window_bytes: int) -> None:
        self._gate = gate
        self._authenticate = authenticate
        self._window_bytes = window_bytes

    async def Publish(self, request: Any, context: Any) -> Any:
        """Take one batch."""
        grant = await self._grant(context)
        try:
            return await self._take(request, grant)
        except RefusedError as e:
            if e.retry_after_seconds is not None:
                context.set_trailing_metadata((("retry-after-ms", str(int(e.retry_after_seconds * 1000))),))
            await context.abort(CODES[e.kind], str(e))

    async def Stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Take batches side by side; answer in their order."""
        grant = await self._grant(context)
        answers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        window = _Window(self._window_bytes)

        async def read() -> None:
            try:
                async for request in requests:
                    size = request.ByteSize()
                    await window.take(size)
                    await self._gate.room(_events(request))
                    task = asyncio.create_task(self._answer(request, grant))
                    task.add_done_callback(partial(window.give, size))
                    await answers.put(task)
            finally:
                await answers.put(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await answers.get()) is not None:
                yield await task
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _answer(self, request: Any, grant: Grant) -> Any:
        try:
            return await self._take(request, grant)
        except RefusedError as e:
            return pb.PublishResponse(
                batch_id=request.batch_id,
                status=STATUSES[e.kind],
                detail=str(e),
                retry_after_ms=int((e.retry_after_seconds or 0) * 1000),
            )

    async def _take(self, request: Any, grant: Grant) -> Any:
        events, check = _check_of(request)
        answer = await self._gate.take(request.topic, grant, events, check)
        rejected = [pb.Rejection(index=r.index, kind=r.kind, reason=r.reason) for r in answer.rejected]
        return pb.PublishResponse(batch_id=request.batch_id, accepted=answer.accepted, rejected=rejected)

    async def _grant(self, context: Any) -> Grant:
        metadata = dict(context.invocation_metadata() or ())
        grant = self._authenticate(metadata.get("authorization"))
        if grant is None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "send the metadata authorization: Bearer <key>; `fluvial keys add` makes one",
            )
            raise AssertionError("abort raises")
        return grant


class _Window:
    """Bytes that may be on their way at a time; a single larger batch may go alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._room = asyncio.Event()

    async def take(self, size: int) -> None:
        while self._used and self._used + size > self._size:
            self._room.clear()
            await self._room.wait()
        self._used += size

    def give(self, size: int, _: object = None) -> None:
        self._used -= size
        self._room.set()


def _events(request: Any) -> int:
    kind = request.WhichOneof("events")
    return 0 if kind is None else len(getattr(request, kind).events)


def _check_of(request: Any) -> tuple[int, Check]:
    kind = request.WhichOneof("events")
    if kind is None:
        raise RefusedError("invalid", "a batch without events", hint="set readings, posts or avro")
    if kind == "avro":
        avro = request.avro

        def check_avro(intake: TopicIntake, now_ms: int, prefix: str) -> Checked:
            return intake.from_framed(framed(avro.schema_id, avro.events), now_ms, prefix=prefix)

        return len(avro.events), check_avro
    events = getattr(request, kind).events
    columns_of = columns_of_readings if kind == "readings" else columns_of_posts

    def check(intake: TopicIntake, now_ms: int, prefix: str) -> Checked:
        if intake.event != EVENTS[kind]:
            raise RefusedError("invalid", f"{intake.topic} takes {intake.event}, not {kind}", hint="see its schema")
        return intake.from_columns(columns_of(events), now_ms, prefix=prefix)

    return len(events), check


def grpc_server(
    gate: Gate, authenticate: Authenticate, *, window_bytes: int, max_message_bytes: int, credentials: Any = None
) -> tuple[Any, Any]:
    """Return a `grpc.aio` server without an address, and its health servicer."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.so_reuseport", 0),
        )
    )
    add: Any = ingest_pb2_grpc.add_IngestServicer_to_server
    add(Ingest(gate, authenticate, window_bytes=window_bytes), server)
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    return server, servicer


async def set_serving(servicer: Any, serving: bool) -> None:
    """Tell health checks whether the gateway takes batches."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", SERVICE):
        await servicer.set(name, status)
