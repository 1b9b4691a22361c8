"""The gateway's HTTP side: what each answer promises."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft7Validator
from openapi_spec_validator import validate

from fluvial.producers.gateway.http_app import document, http_app
from fluvial.producers.gateway.keys import Grant
from fluvial.schemas.avro import load_schema
from support.gate import HeldPublisher, gate, reading
from support.transport import eventually

DATA = Path(__file__).parents[1] / "data"
EVENTS = "/v1/topics/iot.readings/events"
GRANTS = {
    "Bearer all": Grant("all"),
    "Bearer readings": Grant("readings", ("iot.readings",)),
    "Bearer plant": Grant("plant", ("iot.readings",), "p7/"),
    "Bearer slow": Grant("slow", events_per_second=10.0),
}


@pytest.fixture
def publisher() -> HeldPublisher:
    return HeldPublisher()


@pytest.fixture
async def http(publisher: HeldPublisher) -> AsyncIterator[httpx.AsyncClient]:
    async def ready() -> str | None:
        return None

    app = http_app(gate(publisher, max_in_flight=100), GRANTS.get, ready, max_body_bytes=100_000)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": "Bearer all", "Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


async def test_good_events_are_published_and_bad_ones_named(http: httpx.AsyncClient, publisher: HeldPublisher) -> None:
    answer = await http.post(EVENTS, json=[reading(), reading(value=None), reading()])
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted": 2, "rejected": [{"index": 1, "kind": "invalid", "reason": "value: missing"}],
    }  # fmt: skip
    assert [(t, k) for t, k, _ in publisher.records] == [("iot.readings", b"s1")] * 2


async def test_the_answer_waits_for_the_delivery_report(http: httpx.AsyncClient, publisher: HeldPublisher) -> None:
    publisher.hold()
    request = asyncio.create_task(http.post(EVENTS, json=reading()))
    await eventually(lambda: publisher.held == 1)
    await asyncio.sleep(0)
    assert not request.done()
    publisher.release()
    assert (await request).json()["accepted"] == 1


async def test_an_unknown_outcome_is_503_and_may_be_sent_again(
    http: httpx.AsyncClient, publisher: HeldPublisher
) -> None:
    publisher.hold()
    request = asyncio.create_task(http.post(EVENTS, json=reading()))
    await eventually(lambda: publisher.held == 1)
    publisher.fail()
    answer = await request
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:fluvial:problem:unavailable"


async def test_too_much_at_once_is_429(http: httpx.AsyncClient, publisher: HeldPublisher) -> None:
    publisher.hold()
    request = asyncio.create_task(http.post(EVENTS, json=[reading()] * 90))
    await eventually(lambda: publisher.held == 1)
    answer = await http.post(EVENTS, json=[reading()] * 11)
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:fluvial:problem:busy")
    assert "retry-after" in answer.headers
    publisher.release()
    assert (await request).status_code == 200
    assert (await http.post(EVENTS, json=[reading()] * 11)).status_code == 200


async def test_a_key_over_its_rate_is_429(http: httpx.AsyncClient) -> None:
    slow = {"Authorization": "Bearer slow"}
    assert (await http.post(EVENTS, json=[reading()] * 10, headers=slow)).status_code == 200
    assert (await http.post(EVENTS, json=[reading()] * 5, headers=slow)).status_code == 429
    assert (await http.post(EVENTS, json=[reading()] * 5)).status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nobody", "Basic all", "all"])
async def test_nobody_is_401_before_the_body_is_read(
    http: httpx.AsyncClient, publisher: HeldPublisher, header: str | None
) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"{"

    headers = {"Authorization": header} if header is not None else {}
    if header is None:
        del http.headers["authorization"]
    answer = await http.post(EVENTS, content=body(), headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not read
    assert publisher.records == []


async def test_a_key_publishes_to_its_topics_and_its_own_sensors_only(
    http: httpx.AsyncClient, publisher: HeldPublisher
) -> None:
    answer = await http.post("/v1/topics/social.posts/events", json={}, headers={"Authorization": "Bearer readings"})
    assert answer.status_code == 403
    batch = [reading(sensor_id="p7/1"), reading(sensor_id="p8/1")]
    answer = await http.post(EVENTS, json=batch, headers={"Authorization": "Bearer plant"})
    assert [r["index"] for r in answer.json()["rejected"]] == [1]
    assert [k for _, k, _ in publisher.records] == [b"p7/1"]


async def test_when_no_event_is_good_the_status_says_so(http: httpx.AsyncClient) -> None:
    answer = await http.post(EVENTS, json=[{}, reading(value="x")])
    assert answer.status_code == 422
    assert [r["index"] for r in answer.json()["rejected"]] == [0, 1]


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/v1/topics/other/events", b"{}", {}, 404),
        ("/v1/elsewhere", b"{}", {}, 404),
        (EVENTS, b"{", {}, 400),
        (EVENTS, b"{}", {"Content-Type": "text/plain"}, 400),
        (EVENTS, b" " * 100_001, {}, 413),
        (EVENTS, b"{}", {"Content-Encoding": "br"}, 400),
        (EVENTS, b"{}", {"Idempotency-Key": "x" * 256}, 400),
    ],
)
async def test_what_cannot_be_taken_is_a_problem(
    http: httpx.AsyncClient, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await http.post(path, content=content, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"].startswith("urn:fluvial:problem:")


async def test_a_body_without_a_declared_length_is_stopped_at_the_limit(http: httpx.AsyncClient) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 10_000
            yield b" " * 10_000

    answer = await http.post(EVENTS, content=body())
    assert answer.status_code == 413
    assert sent < 200_000


async def test_an_idempotency_key_publishes_once(http: httpx.AsyncClient, publisher: HeldPublisher) -> None:
    headers = {"Idempotency-Key": "k1"}
    publisher.hold()
    two = [asyncio.create_task(http.post(EVENTS, json=reading(), headers=headers)) for _ in range(2)]
    await eventually(lambda: publisher.held == 1)
    publisher.release()
    answers = [await t for t in two]
    assert [a.json()["accepted"] for a in answers] == [1, 1]
    assert sorted(a.headers.get("idempotent-replayed", "") for a in answers) == ["", "true"]
    assert len(publisher.records) == 1
    other = await http.post(EVENTS, json=reading(value=2.0), headers=headers)
    assert other.status_code == 400
    assert (
        await http.post(EVENTS, json=reading(), headers=headers | {"Authorization": "Bearer readings"})
    ).status_code == 200
    assert len(publisher.records) == 2


async def test_a_failure_is_not_remembered_under_an_idempotency_key(
    http: httpx.AsyncClient, publisher: HeldPublisher
) -> None:
    headers = {"Idempotency-Key": "k2"}
    publisher.hold()
    request = asyncio.create_task(http.post(EVENTS, json=reading(), headers=headers))
    await eventually(lambda: publisher.held == 1)
    publisher.fail()
    assert (await request).status_code == 503
    publisher.release()
    assert (await http.post(EVENTS, json=reading(), headers=headers)).status_code == 200


async def test_metrics_count_events_by_topic_and_outcome(http: httpx.AsyncClient) -> None:
    await http.post(EVENTS, json=[reading(), {}])
    await http.post("/v1/topics/made-up/events", json=reading())
    text = (await http.get("/metrics")).text
    assert 'fluvial_gateway_events_total{outcome="accepted",topic="iot.readings"} 1.0' in text
    assert 'fluvial_gateway_events_total{outcome="rejected",topic="iot.readings"} 1.0' in text
    assert "made-up" not in text


async def test_health_and_readiness(publisher: HeldPublisher) -> None:
    state: list[str | None] = [None]

    async def ready() -> str | None:
        return state[0]

    app = http_app(gate(publisher), GRANTS.get, ready, max_body_bytes=1000)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        state[0] = "Kafka does not answer"
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "Kafka does not answer")
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get(EVENTS)).status_code == 405


def test_the_openapi_document_is_valid_and_names_every_answer() -> None:
    openapi: dict[str, Any] = document("openapi.json")
    validate(openapi)  # type: ignore[arg-type]
    answers = openapi["paths"]["/v1/topics/{topic}/events"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "403", "404", "413", "422", "429", "503"}
    assert json.dumps(openapi)


def test_the_asyncapi_document_is_valid_and_has_the_shipped_schemas() -> None:
    schema = json.loads(gzip.decompress((DATA / "asyncapi-3.0.0.json.gz").read_bytes()))
    asyncapi: dict[str, Any] = document("asyncapi.json")
    assert [e.message for e in Draft7Validator(schema).iter_errors(asyncapi)] == []
    messages = asyncapi["components"]["messages"]
    assert messages["SensorReading"]["payload"]["schema"] == load_schema("fluvial.iot.SensorReading")
    assert messages["SocialPost"]["payload"]["schema"] == load_schema("fluvial.social.SocialPost")
