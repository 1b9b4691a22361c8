"""How many events a second a gateway acknowledges: its process on one core, the client's on the other, Kafka on both.

Batches of 500 readings; every one is answered after Kafka's acknowledgement at acks=all. The baseline is what one would
write first: a route that checks each event with pydantic and calls `produce` for it.
"""

import asyncio
import io
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import fastavro
import grpc
import httpx
from confluent_kafka.admin import AdminClient, NewTopic
from imports import Measured
from measured_gateway import EVENT, GRPC_PORT, HTTP_PORT, SCHEMA_ID

from fluvial.schemas import ingest_pb2 as pb
from fluvial.schemas import ingest_pb2_grpc
from fluvial.schemas.avro import load_schema
from fluvial.settings import Settings
from fluvial.transport.connection import librdkafka_config

BATCH = 500
PARTITIONS = 4
LANES = 32
WARM_UP_BATCHES = 60
BATCHES = {"avro": 2_000, "typed": 800, "ndjson": 500, "baseline": 60}
HERE = Path(__file__).resolve().parent

Send = Callable[[int], Awaitable[list[float]]]


def measure_avro(settings: Settings) -> Measured:
    """gRPC, batches of Avro data."""
    return asyncio.run(_measure(settings, "avro"))


def measure_typed(settings: Settings) -> Measured:
    """gRPC, typed messages."""
    return asyncio.run(_measure(settings, "typed"))


def measure_ndjson(settings: Settings) -> Measured:
    """HTTP, NDJSON."""
    return asyncio.run(_measure(settings, "ndjson"))


def measure_baseline(settings: Settings) -> Measured:
    """HTTP, one produce per event."""
    return asyncio.run(_measure(settings, "baseline"))


async def _measure(settings: Settings, kind: str) -> Measured:
    topic = f"bench-gateway-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(librdkafka_config(settings.kafka))
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    server = _started(settings, topic, kind, cores[0])
    try:
        await _ready(server)
        async with _sender(kind, topic) as send:
            await send(WARM_UP_BATCHES)
            cpu, begun = _cpu_seconds(server.pid), time.perf_counter()
            await send(BATCHES[kind])
            seconds, cpu_seconds = time.perf_counter() - begun, _cpu_seconds(server.pid) - cpu
            half = BATCHES[kind] / seconds / 2
            waits = await _paced(send, half)
        peak = _peak_mb(server.pid)
    finally:
        server.terminate()
        server.wait(30)
        os.sched_setaffinity(0, set(cores))
        admin.delete_topics([topic])[topic].result()
    p99_ms = 1000 * waits[int(0.99 * (len(waits) - 1))]
    note = f"batches of {BATCH}; p99 of an acknowledgement at half of that: {p99_ms:.0f} ms"
    return Measured(f"gateway-{kind}", BATCHES[kind] * BATCH, seconds, cpu_seconds, peak, note)


def _started(settings: Settings, topic: str, kind: str, core: int) -> subprocess.Popen[bytes]:
    script = str(HERE / "measured_gateway.py")
    command = [sys.executable, script, settings.model_dump_json(), topic, kind, str(core)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


@asynccontextmanager
async def _sender(kind: str, topic: str) -> AsyncIterator[Send]:
    """Yield a function that sends n batches over some lanes and returns how long each waited, in seconds."""
    if kind in ("avro", "typed"):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{GRPC_PORT}") as channel:
            stub, request = ingest_pb2_grpc.IngestStub(channel), _request(kind, topic)

            async def call() -> None:
                answer = await stub.Publish(request)
                assert answer.accepted == BATCH, answer

            yield _over_lanes(call)
        return
    limits = httpx.Limits(max_connections=LANES)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        body = "".join(json.dumps(e) + "\n" for e in _readings()).encode()
        url, headers = (
            f"http://127.0.0.1:{HTTP_PORT}/v1/topics/{topic}/events",
            {"Content-Type": "application/x-ndjson"},
        )

        async def post() -> None:
            answer = await http.post(url, content=body, headers=headers)
            assert answer.json()["accepted"] == BATCH, answer.text

        yield _over_lanes(post)


def _over_lanes(call: Callable[[], Awaitable[None]]) -> Send:
    async def send(batches: int) -> list[float]:
        left, waits = batches, []

        async def lane() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                begun = time.perf_counter()
                await call()
                waits.append(time.perf_counter() - begun)

        await asyncio.gather(*(lane() for _ in range(LANES)))
        return waits

    return send


async def _paced(send: Send, batches_per_second: float, seconds: float = 5.0) -> list[float]:
    """Send at a rate, and return how long each batch waited, ascending."""
    tasks = []
    for _ in range(max(20, int(batches_per_second * seconds))):
        tasks.append(asyncio.create_task(send(1)))
        await asyncio.sleep(1 / batches_per_second)
    return sorted(w for waits in await asyncio.gather(*tasks) for w in waits)


def _readings() -> list[dict[str, object]]:
    now_ms = time.time_ns() // 1_000_000
    return [
        {
            "sensor_id": f"sensor-{i:04}", "site": "bench", "metric": "temperature", "event_time": now_ms - i,
            "value": i / 7, "sequence": i,
        }
        for i in range(BATCH)
    ]  # fmt: skip


def _request(kind: str, topic: str) -> pb.PublishRequest:
    if kind == "typed":
        typed = [
            pb.SensorReading(**{"event_time_ms" if k == "event_time" else k: v for k, v in e.items()})  # type: ignore[arg-type]
            for e in _readings()
        ]
        return pb.PublishRequest(topic=topic, readings=pb.SensorReadings(events=typed))
    schema = fastavro.parse_schema(load_schema(EVENT))
    events = []
    for e in _readings():
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {"unit": None, **e})
        events.append(out.getvalue())
    return pb.PublishRequest(topic=topic, avro=pb.AvroEvents(schema_id=SCHEMA_ID, events=events))


async def _ready(server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    async with httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{HTTP_PORT}/healthz")).status_code == 200:
                    return
            except httpx.HTTPError:
                assert server.poll() is None, "the gateway ended"
                assert time.monotonic() < deadline, "the gateway does not answer"
            await asyncio.sleep(0.05)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
    return int(peak) / 1024 if int(peak) else resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
