"""The product's own worker and sink, put together as its services do, on the stand-ins for what is outside of them."""

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import fluvial.sinks.app as sinks_app
import fluvial.stream_apps.checkpoint_reader as checkpoint_reader
import fluvial.stream_apps.checkpoints as checkpoints
import fluvial.stream_apps.worker as workers
from fluvial import failpoints
from fluvial.settings import CassandraSettings, KafkaSettings, SinkSettings, WorkerSettings
from fluvial.sinks.limits import Breaker
from fluvial.sinks.targets import result_target
from fluvial.sinks.writer import CassandraWriter
from support.simulated.app import fake_batch_app
from support.simulated.clients import FakeConsumer, FakePublisher, here
from support.simulated.declared import Deployment
from support.simulated.kafka import BASE_MS
from support.simulated.loop import Process, Unwinding
from support.simulated.plan import PARTITIONS, Plan
from support.simulated.session import FakeSession

KAFKA = KafkaSettings()
WORKERS_GROUP = "workers"
SINKS_GROUP = "sinks"
CHECKPOINTS = workers.checkpoint_topic(WORKERS_GROUP)
KEYSPACE = "simulated"
REQUEST_SECONDS = 2.0


@contextmanager
def stand_ins() -> Iterator[None]:
    """Put the stand-ins where the product looks for its clients."""
    with ExitStack() as stack:
        for module, name, stand_in in (
            (workers, "batch_app", fake_batch_app),
            (workers, "Publisher", FakePublisher),
            (sinks_app, "batch_app", fake_batch_app),
            (sinks_app, "Publisher", FakePublisher),
            (sinks_app, "CassandraWriter", _writer),
            (checkpoint_reader, "Consumer", FakeConsumer),
            (checkpoints, "secrets", _Secrets),
            (workers, "time", _Time),
            (failpoints, "hit", _hit),
        ):
            stack.enter_context(mock.patch.object(module, name, stand_in))
        yield


def worker(plan: Plan, deployment: Deployment, generation: int, instance: str | None) -> workers.Worker:
    """Return a worker of the running process."""
    settings = WorkerSettings(
        group=WORKERS_GROUP, instance_id=instance, generation=generation, checkpoint_seconds=plan.checkpoint_seconds
    )
    partitions = dict.fromkeys([*deployment.plans, *deployment.rekeyed, CHECKPOINTS], PARTITIONS)
    return workers.Worker(KAFKA, settings, deployment.plans, deployment.decoders, deployment.writers, partitions)


def sink(plan: Plan, deployment: Deployment, instance: str | None) -> sinks_app.Sink:
    """Return a sink of the running process."""
    process, world = here()
    settings = SinkSettings(group=SINKS_GROUP, instance_id=instance, rows_per_batch=plan.rows_per_batch)
    topics = [
        sinks_app.SinkTopic(
            p.result_topic,
            result_target(p.table),
            deployment.result_decoders[p.result_topic],
            lambda records, errors: (),
        )
        for p in deployment.pipelines
    ]
    return sinks_app.Sink(
        KAFKA,
        settings,
        CassandraSettings(keyspace=KEYSPACE, request_timeout_seconds=REQUEST_SECONDS),
        FakeSession(world.cassandra, process, KEYSPACE),
        topics,
        wall_ms=lambda: BASE_MS + int(process.loop.time() * 1000),
    )


class _Secrets:
    """Names that nobody else has, drawn from the run's generator."""

    @staticmethod
    def token_hex(n: int) -> str:
        return f"{here()[1].rng.getrandbits(8 * n):0{2 * n}x}"

    @staticmethod
    def randbits(n: int) -> int:
        return int(here()[1].rng.getrandbits(n))


class _Time:
    """The virtual clock; computing takes no time."""

    @staticmethod
    def monotonic() -> float:
        return here()[0].loop.time()

    perf_counter = monotonic

    @staticmethod
    def thread_time() -> float:
        return 0.0


def _writer(session: Any, **options: Any) -> CassandraWriter:
    """A writer on the virtual clock, its jitter drawn from the run's generator."""
    process, world = here()
    made = CassandraWriter(
        session, clock=process.loop.time, breaker=Breaker(rng=random.Random(world.rng.random())), **options
    )
    made._rng = random.Random(world.rng.random())
    return made


def _hit(name: str) -> None:
    process, world = here()
    if world.failpoint(name):
        world.trace.note(f"{process.name} is killed at {name}")
        process.kill()
        raise Unwinding(name)


def ledgers(world: Any) -> list[tuple[checkpoints.Place, int, Mapping[str, Mapping[str, int]]]]:
    """Return what the newest checkpoint of every partition and generation covers, and its ledger."""
    process = Process(world.loop, "auditor")
    process.world = world
    places = [
        checkpoints.Place(topic, p, generation)
        for topic in world.deployment.plans
        for p in range(PARTITIONS)
        for generation in range(world.generation + 1)
    ]
    store = checkpoints.CheckpointStore(KAFKA, CHECKPOINTS, PARTITIONS)
    with stand_ins():
        found = process.context.run(store.ledgers, places)
    return [(place, covers, ledger) for place, (covers, ledger) in found.items()]
