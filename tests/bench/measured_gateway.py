"""The gateway that `gateway.py` measures, or the baseline: SETTINGS TOPIC KIND CORE."""

import asyncio
import os
import sys

HTTP_PORT, GRPC_PORT = 28_070, 28_071
EVENT = "fluvial.iot.SensorReading"
SCHEMA_ID = 1


async def gateway(settings_json: str, topic: str) -> None:
    """Serve both doors without keys."""
    import uvicorn

    from fluvial.producers.gateway.gate import Gate
    from fluvial.producers.gateway.grpc_service import grpc_server
    from fluvial.producers.gateway.http_app import http_app
    from fluvial.producers.gateway.intake import TopicIntake
    from fluvial.producers.gateway.keys import ANYONE
    from fluvial.schemas.avro import load_schema
    from fluvial.schemas.decoder import Decoder
    from fluvial.schemas.encoder import Encoder
    from fluvial.schemas.sources import SchemaMap
    from fluvial.settings import Settings
    from fluvial.transport.publisher import Publisher

    settings, schema = Settings.model_validate_json(settings_json), load_schema(EVENT)
    ours = settings.gateway
    intake = TopicIntake(
        topic, schema, key="sensor_id", event_time="event_time", not_empty=frozenset({"sensor_id", "metric"}),
        encoder=Encoder(schema, SCHEMA_ID), decoder=Decoder(schema, SchemaMap({SCHEMA_ID: schema})), max_ahead_ms=300_000,
    )  # fmt: skip
    intake.warm_up()

    async def ready() -> str | None:
        return None

    async with Publisher(settings.kafka) as publisher:
        gate = Gate(
            publisher, {topic: intake}, max_in_flight=ours.max_in_flight, ack_timeout_seconds=ours.ack_timeout_seconds,
            events_per_second=0,
        )  # fmt: skip
        app = http_app(gate, lambda _: ANYONE, ready, max_body_bytes=ours.max_body_bytes)
        rpc, _ = grpc_server(
            gate, lambda _: ANYONE, window_bytes=ours.window_bytes, max_message_bytes=ours.max_body_bytes
        )
        rpc.add_insecure_port(f"127.0.0.1:{GRPC_PORT}")
        await rpc.start()
        config = uvicorn.Config(
            app, host="127.0.0.1", port=HTTP_PORT, log_config=None, access_log=False, lifespan="off"
        )
        await uvicorn.Server(config).serve()
        await rpc.stop(1)


async def baseline(settings_json: str, topic: str) -> None:
    """Serve FastAPI and one produce per event, each event's delivery awaited."""
    import json

    import uvicorn
    from confluent_kafka import Producer
    from fastapi import FastAPI, Request
    from pydantic import BaseModel

    from fluvial.settings import Settings

    class Reading(BaseModel):
        sensor_id: str
        site: str = ""
        metric: str
        event_time: int
        value: float
        unit: str | None = None
        sequence: int | None = None

    settings = Settings.model_validate_json(settings_json)
    producer = Producer({"bootstrap.servers": settings.kafka.brokers, "acks": "all", "enable.idempotence": True})
    app, loop = FastAPI(), asyncio.get_running_loop()

    async def poll() -> None:
        while True:
            producer.poll(0)
            await asyncio.sleep(0.001)

    @app.post("/v1/topics/{name}/events")
    async def publish(name: str, request: Request) -> dict[str, int]:
        waiting = []
        for line in (await request.body()).splitlines():
            reading = Reading.model_validate_json(line)
            done = loop.create_future()
            producer.produce(
                name, json.dumps(reading.model_dump()).encode(), reading.sensor_id.encode(),
                on_delivery=lambda error, _, done=done: done.set_result(error),
            )  # fmt: skip
            waiting.append(done)
        assert not any([await w for w in waiting])
        return {"accepted": len(waiting)}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    polling = asyncio.create_task(poll())
    config = uvicorn.Config(app, host="127.0.0.1", port=HTTP_PORT, log_config=None, access_log=False)
    await uvicorn.Server(config).serve()
    polling.cancel()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[4])})
    serve = baseline if sys.argv[3] == "baseline" else gateway
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
