"""Putting a simulation together: topic, key, registry, publisher, clock and signals."""

import asyncio
import signal
import time
from collections.abc import Callable

from fluvial.producers.simulation import Progress, Simulation
from fluvial.producers.simulation_plan import SimulationPlan
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services.importing import event_topic
from fluvial.services.partitions import partition_counts
from fluvial.settings import Settings
from fluvial.transport.publisher import Publisher

TOPICS = {"sensors": "iot.readings", "posts": "social.posts"}
EVENTS = {"sensors": "fluvial.iot.SensorReading", "posts": "fluvial.social.SocialPost"}


async def simulate(
    settings: Settings,
    catalog: Catalog,
    plan: SimulationPlan,
    *,
    topic: str | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Publish a simulation until its end, SIGINT or SIGTERM; what was sent is acknowledged then.

    Raises:
        ProvisioningError, SchemaError: topic or subject are missing, or the topic holds other events.
        PublishError: an event was not acknowledged.
    """
    kind = plan.request.kind
    into = event_topic(catalog, topic or TOPICS[kind], EVENTS[kind])
    partition_counts(settings.kafka, {into.topic})
    with Registry(settings.registry) as registry:
        encoder = Encoder(into.schema, into.schema_id(registry))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for s in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(s, stop.set)
    try:
        async with Publisher(settings.kafka) as publisher:
            simulation = Simulation(publisher, into.topic, into.key, encoder, time.monotonic)
            return await simulation.run(plan.arrivals(), speed=plan.speed, stop=stop, report=report)
    finally:
        for s in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(s)
