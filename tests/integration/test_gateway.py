"""A real gateway before a real Kafka: what it acknowledged is in the log, whoever is killed in between."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

from fluvial.client import Client, sending
from fluvial.schemas import ingest_pb2 as pb
from fluvial.schemas import ingest_pb2_grpc
from fluvial.schemas.provision import init as provision
from fluvial.services.declared import load_catalog
from fluvial.settings import Settings
from support.gateway_process import GatewayProcess
from support.in_the_log import READINGS as TOPIC
from support.in_the_log import SensorsInTheLog

pytestmark = [pytest.mark.integration, pytest.mark.timeout(500)]

EVENTS = f"/v1/topics/{TOPIC}/events"


@pytest.fixture(scope="module")
def gateway(cluster_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    s = cluster_settings
    provision(s.kafka, s.registry, s.cassandra, s.worker.group, load_catalog(s.worker))
    process = GatewayProcess(cluster_settings, tmp_path_factory.mktemp("gateway"))
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    return gateway.keys.add("tests", (TOPIC,))


class Sensor:
    """A sensor of one test, and what the log has of it."""

    def __init__(self, settings: Settings) -> None:
        self.id = f"gateway-{uuid.uuid4().hex[:12]}"
        self._log = SensorsInTheLog(settings)

    def in_the_log(self) -> list[int]:
        """Return the sequence numbers of its events, in the log's order."""
        return [e["sequence"] for e in self._log.events(self.id)]


@pytest.fixture
def sensor(cluster_settings: Settings, gateway: GatewayProcess) -> Sensor:
    return Sensor(cluster_settings)


def reading(sensor: str, number: int) -> dict[str, object]:
    now_ms = time.time_ns() // 1_000_000
    return {"sensor_id": sensor, "metric": "t", "event_time": now_ms, "value": float(number), "sequence": number}


def test_both_doors_lead_to_the_log(gateway: GatewayProcess, key: str, sensor: Sensor) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    lines = "\n".join(json.dumps(reading(sensor.id, i)) for i in range(3))
    headers["Content-Type"] = "application/x-ndjson"
    answer = httpx.post(f"{gateway.http_url}{EVENTS}", content=lines, headers=headers, timeout=60)
    assert answer.json() == {"accepted": 3, "rejected": []}
    typed = pb.SensorReading(
        sensor_id=sensor.id, metric="t", event_time_ms=time.time_ns() // 1_000_000, value=3.0, sequence=3
    )
    request = pb.PublishRequest(batch_id="x", topic=TOPIC, readings=pb.SensorReadings(events=[typed]))
    with grpc.insecure_channel(gateway.grpc_target) as channel:
        stub = ingest_pb2_grpc.IngestStub(channel)
        assert stub.Publish(request, metadata=[("authorization", f"Bearer {key}")]).accepted == 1
        with pytest.raises(grpc.RpcError) as e:
            stub.Publish(request)
    assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert sensor.in_the_log() == [0, 1, 2, 3]
    assert 'outcome="accepted",topic="iot.readings"' in httpx.get(f"{gateway.http_url}/metrics").text
    log = (gateway.folder / "gateway.log").read_text()
    assert key not in log
    assert sensor.id not in log


def test_what_was_acknowledged_is_in_the_log_though_the_gateway_is_killed(
    gateway: GatewayProcess, key: str, sensor: Sensor
) -> None:
    """Straight requests, no client: the journal of acknowledgements against the log."""
    acknowledged: list[int] = []
    stop = threading.Event()

    def push(lane: int) -> None:
        number = lane * 1_000_000
        with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
            while not stop.is_set():
                batch = [reading(sensor.id, number + i) for i in range(50)]
                number += 50
                try:
                    answer = http.post(f"{gateway.http_url}{EVENTS}", json=batch)
                except httpx.HTTPError:
                    stop.wait(0.05)
                    continue
                if answer.status_code == 200:
                    assert answer.json()["accepted"] == 50
                    acknowledged.extend(int(e["sequence"]) for e in batch)  # type: ignore[call-overload]

    def wait_for(n: int) -> None:
        deadline = time.monotonic() + 120
        while len(acknowledged) < n:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with ThreadPoolExecutor(4) as lanes:
        running = [lanes.submit(push, i) for i in range(4)]
        try:
            wait_for(500)
            gateway.kill()
            gateway.start()
            wait_for(len(acknowledged) + 500)
            assert gateway.terminate() == 0
            gateway.start()
            wait_for(len(acknowledged) + 500)
        finally:
            stop.set()
        for r in running:
            r.result()
    found = sensor.in_the_log()
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))  # nobody sent anything twice


def test_a_client_delivers_everything_in_order_over_killed_gateways(
    gateway: GatewayProcess, key: str, sensor: Sensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sending, "LONGEST_DELAY_SECONDS", 0.5)
    with Client(
        gateway.http_url, key=key, topic=TOPIC, buffer=tmp_path / "buffer.db", batch_events=100, batch_seconds=0.0
    ) as client:
        for n in range(4_000):
            event = reading(sensor.id, n)
            del event["sequence"]
            client.send(event)
            if n == 1_500:
                while client.acknowledged < 500:
                    time.sleep(0.005)
                gateway.kill()
                gateway.start()
        assert client.flush(60)
        assert client.rejected() == []
    found = sensor.in_the_log()
    assert set(found) == set(range(1, 4_001))
    first_of_each = list(dict.fromkeys(found))
    assert first_of_each == sorted(first_of_each)
