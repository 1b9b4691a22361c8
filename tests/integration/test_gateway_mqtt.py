"""A real MQTT broker, the bridge in a real gateway, a real Kafka: nothing that the broker took is lost."""

import json
import time
import uuid
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fluvial.schemas import sparkplug_pb2 as pb
from fluvial.schemas.provision import init as provision
from fluvial.services.declared import load_catalog
from fluvial.settings import Settings
from support.gateway_process import GatewayProcess
from support.in_the_log import SensorsInTheLog
from support.mosquitto import Mosquitto

pytestmark = [pytest.mark.integration, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    mosquitto.start()
    yield mosquitto
    mosquitto.stop()


@pytest.fixture(scope="module")
def gateway(
    cluster_settings: Settings, broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    s = cluster_settings
    provision(s.kafka, s.registry, s.cassandra, s.worker.group, load_catalog(s.worker))
    process = GatewayProcess(
        s,
        tmp_path_factory.mktemp("gateway"),
        FLUVIAL_GATEWAY__MQTT_URL=broker.url,
        FLUVIAL_GATEWAY__MQTT_ROUTES="plants/{site}/{sensor_id}/{metric}=iot.readings, spBv1.0/#=iot.readings",
    )
    process.start()
    yield process
    process.close()


@pytest.fixture
def publisher(broker: Mosquitto, gateway: GatewayProcess) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


def send(client: paho.Client, topic: str, payload: str | bytes) -> None:
    client.publish(topic, payload, qos=1).wait_for_publish(30)


def wait_for(log: SensorsInTheLog, sensor: str, n: int) -> list[dict[str, object]]:
    deadline = time.monotonic() + 60
    while len(found := log.events(sensor)) < n:
        assert time.monotonic() < deadline, f"{len(found)} of {n}"
        time.sleep(0.2)
    return found


def test_what_the_broker_took_reaches_the_log_over_a_killed_gateway(
    cluster_settings: Settings, gateway: GatewayProcess, publisher: paho.Client
) -> None:
    sensor, log = f"mqtt-{uuid.uuid4().hex[:12]}", SensorsInTheLog(cluster_settings)
    now_ms = time.time_ns() // 1_000_000

    def reading(i: int) -> str:
        return json.dumps({"value": i, "event_time": now_ms + i, "sequence": i})

    for i in range(200):
        send(publisher, f"plants/p7/{sensor}/temp", reading(i))
    wait_for(log, sensor, 1)
    gateway.kill()
    for i in range(200, 400):
        send(publisher, f"plants/p7/{sensor}/temp", reading(i))
    send(publisher, f"plants/p7/{sensor}/temp", b"rubbish \xff")
    gateway.start()
    for i in range(400, 600):
        send(publisher, f"plants/p7/{sensor}/temp", reading(i))
    deadline = time.monotonic() + 60
    while {e["sequence"] for e in log.events(sensor)} != set(range(600)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    found = log.events(sensor)
    assert {(e["site"], e["metric"]) for e in found} == {("p7", "temp")}
    first_of_each = list(dict.fromkeys(e["sequence"] for e in found))
    assert first_of_each == list(range(600))
    (rejected,) = (gateway.folder / "mqtt.rejected.ndjson").read_text().splitlines()
    assert json.loads(rejected)["reason"] == "not JSON"


def test_sparkplug_births_and_data_become_readings(
    cluster_settings: Settings, gateway: GatewayProcess, publisher: paho.Client
) -> None:
    node, log = f"n{uuid.uuid4().hex[:12]}", SensorsInTheLog(cluster_settings)
    now_ms = time.time_ns() // 1_000_000
    asked: list[bytes] = []
    publisher.on_message = lambda client, userdata, message: asked.append(message.payload)
    publisher.subscribe(f"spBv1.0/g/NCMD/{node}")

    def payload(seq: int, **metric: object) -> bytes:
        m = pb.Payload.Metric(alias=4, double_value=float(seq), **metric)  # type: ignore[arg-type]
        return pb.Payload(timestamp=now_ms + seq, seq=seq, metrics=[m]).SerializeToString()

    send(publisher, f"spBv1.0/g/NBIRTH/{node}", payload(0, name="level"))
    send(publisher, f"spBv1.0/g/NDATA/{node}", payload(1))
    send(publisher, f"spBv1.0/g/NDATA/{node}", payload(3))
    found = wait_for(log, f"g/{node}", 3)
    assert [(e["metric"], e["value"]) for e in found] == [("level", 0.0), ("level", 1.0), ("level", 3.0)]
    deadline = time.monotonic() + 30
    while not asked:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert pb.Payload.FromString(asked[0]).metrics[0].name == "Node Control/Rebirth"
