"""Putting a ticker together."""

import asyncio
import signal
import time

from fluvial.producers.ticker import Ticker
from fluvial.schemas.catalog import Catalog
from fluvial.services.partitions import partition_counts
from fluvial.settings import Settings
from fluvial.stream_apps.plan import chosen, plan_topics
from fluvial.transport.publisher import Publisher


def live_topics(settings: Settings, catalog: Catalog) -> set[str]:
    """Return the event topics that the chosen pipelines read, also by way of rekeyed topics."""
    plans = plan_topics(chosen(catalog.pipelines, settings.worker.pipelines))
    return {topic for topic, plan in plans.items() if plan.upstream is None}


def new_ticker(settings: Settings, topics: set[str], publisher: Publisher) -> Ticker:
    """Return a ticker by the wall clock; asks Kafka how many partitions the topics have.

    Raises:
        ProvisioningError: a topic is missing.
    """
    counts = partition_counts(settings.kafka, topics)
    return Ticker(publisher, counts, tick_seconds=settings.worker.tick_seconds, now_ms=_now_ms)


async def run_ticker(settings: Settings, catalog: Catalog, topics: set[str] | None = None) -> None:
    """Tick until SIGINT or SIGTERM.

    Raises:
        ProvisioningError: a topic is missing.
        PublishError: the producer is dead.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for s in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(s, stop.set)
    async with Publisher(settings.kafka) as publisher:
        await new_ticker(settings, topics or live_topics(settings, catalog), publisher).run(stop)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
