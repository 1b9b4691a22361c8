"""The gateway's gRPC side, over a real socket: answers, order, flow control, health, reflection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fluvial.producers.gateway.gate import Gate
from fluvial.producers.gateway.grpc_service import grpc_server, set_serving
from fluvial.producers.gateway.keys import Grant
from fluvial.schemas import ingest_pb2 as pb
from fluvial.schemas import ingest_pb2_grpc
from support.gate import NOW_MS, HeldPublisher, gate
from support.transport import eventually

KEY = (("authorization", "Bearer all"),)
GRANTS = {"Bearer all": Grant("all"), "Bearer readings": Grant("readings", ("iot.readings",))}
WINDOW = 2_000
POSTS = pb.PublishRequest(topic="social.posts", posts=pb.SocialPosts())


class Served:
    def __init__(self, target: str, publisher: HeldPublisher, gate: Gate, health: Any) -> None:
        self.target, self.publisher, self.gate, self.health = target, publisher, gate, health


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    publisher = HeldPublisher()
    door = gate(publisher, max_in_flight=1000)
    server, health = grpc_server(door, GRANTS.get, window_bytes=WINDOW, max_message_bytes=100_000)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await set_serving(health, True)
    yield Served(f"127.0.0.1:{port}", publisher, door, health)
    publisher.release()
    await server.stop(0)


def batch(n: int = 2, **fields: Any) -> Any:
    readings = [
        pb.SensorReading(sensor_id=f"s{i}", metric="t", event_time_ms=NOW_MS, value=float(i), **fields)
        for i in range(n)
    ]
    return pb.PublishRequest(batch_id="b1", topic="iot.readings", readings=pb.SensorReadings(events=readings))


async def test_a_batch_is_answered_when_it_is_acknowledged(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        stub = ingest_pb2_grpc.IngestStub(channel)
        served.publisher.hold()
        call = stub.Publish(batch(), metadata=KEY)
        await eventually(lambda: served.publisher.held == 1)
        assert not call.done()
        served.publisher.release()
        answer = await call
    assert (answer.batch_id, answer.accepted, list(answer.rejected)) == ("b1", 2, [])
    assert [k for _, k, _ in served.publisher.records] == [b"s0", b"s1"]


async def test_bad_events_are_named_by_their_place(served: Served) -> None:
    request = batch(3)
    request.readings.events[1].value = float("nan")
    request.readings.events[2].metric = ""
    async with grpc.aio.insecure_channel(served.target) as channel:
        answer = await ingest_pb2_grpc.IngestStub(channel).Publish(request, metadata=KEY)
    assert answer.accepted == 1
    assert [(r.index, r.reason) for r in answer.rejected] == [(1, "value: not a finite number"), (2, "metric: empty")]


@pytest.mark.parametrize(
    ("request_", "metadata", "code"),
    [
        (batch(), (), grpc.StatusCode.UNAUTHENTICATED),
        (batch(), (("authorization", "Bearer nobody"),), grpc.StatusCode.UNAUTHENTICATED),
        (POSTS, (("authorization", "Bearer readings"),), grpc.StatusCode.PERMISSION_DENIED),
        (pb.PublishRequest(topic="none", readings=pb.SensorReadings()), KEY, grpc.StatusCode.NOT_FOUND),
        (pb.PublishRequest(topic="iot.readings"), KEY, grpc.StatusCode.INVALID_ARGUMENT),
        (pb.PublishRequest(topic="iot.readings", posts=pb.SocialPosts()), KEY, grpc.StatusCode.INVALID_ARGUMENT),
        (batch(20_000), KEY, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)  # fmt: skip
async def test_what_cannot_be_taken_has_its_code(served: Served, request_: Any, metadata: Any, code: Any) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as e:
            await ingest_pb2_grpc.IngestStub(channel).Publish(request_, metadata=metadata)
    assert e.value.code() == code
    assert served.publisher.records == []


async def test_an_unknown_outcome_is_unavailable_with_a_hint_when_to_come_again(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        served.publisher.hold()
        call = ingest_pb2_grpc.IngestStub(channel).Publish(batch(), metadata=KEY)
        await eventually(lambda: served.publisher.held == 1)
        served.publisher.fail()
        with pytest.raises(grpc.aio.AioRpcError) as e:
            await call
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert int(dict(e.value.trailing_metadata() or ())["retry-after-ms"]) > 0


async def test_a_deadline_ends_the_call_though_the_events_may_arrive(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        served.publisher.hold()
        with pytest.raises(grpc.aio.AioRpcError) as e:
            await ingest_pb2_grpc.IngestStub(channel).Publish(batch(), metadata=KEY, timeout=0.3)
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: served.gate.waiting == 0)


async def test_a_stream_answers_in_order_and_goes_on_after_a_bad_batch(served: Served) -> None:
    async def requests() -> AsyncIterator[Any]:
        for i in range(20):
            request = batch(i % 3)
            request.batch_id = str(i)
            if i == 7:
                request.topic = "none"
            yield request

    async with grpc.aio.insecure_channel(served.target) as channel:
        answers = [a async for a in ingest_pb2_grpc.IngestStub(channel).Stream(requests(), metadata=KEY)]
    assert [a.batch_id for a in answers] == [str(i) for i in range(20)]
    assert [a.status for a in answers] == [
        pb.PublishResponse.INVALID if i == 7 else pb.PublishResponse.OK for i in range(20)
    ]
    assert [a.accepted for a in answers] == [0 if i == 7 else i % 3 for i in range(20)]


async def test_a_stream_reads_no_further_than_its_window(served: Served) -> None:
    served.publisher.hold()
    size = batch(2).ByteSize()

    async def requests() -> AsyncIterator[Any]:
        for _ in range(10 * WINDOW // size):
            yield batch(2)

    async with grpc.aio.insecure_channel(served.target) as channel:
        call = ingest_pb2_grpc.IngestStub(channel).Stream(requests(), metadata=KEY)
        await eventually(lambda: served.publisher.held == WINDOW // size)
        for _ in range(50):  # it does not move on while nothing is acknowledged
            await asyncio.sleep(0.002)
        assert served.publisher.held == WINDOW // size
        served.publisher.release()
        assert len([a async for a in call]) == 10 * WINDOW // size


async def test_health_follows_the_gateway_and_reflection_names_the_service(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="fluvial.v1.Ingest")
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        await set_serving(served.health, False)
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        answers = [a async for a in call]
    names = {s.name for a in answers for s in a.list_services_response.service}
    assert {"fluvial.v1.Ingest", "grpc.health.v1.Health"} <= names
