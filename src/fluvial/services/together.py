"""Worker, sink and ticker in one process, for one machine; and the end of a bounded run."""

import asyncio
import logging

from fluvial.cluster.progress import Report, Step, silent
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.registry import Registry
from fluvial.services.processors import build_worker
from fluvial.services.progress import GroupProgress
from fluvial.services.running import run_apps
from fluvial.services.sinking import build_sink
from fluvial.services.ticking import live_topics, new_ticker
from fluvial.settings import Settings
from fluvial.sinks.app import Sink
from fluvial.stream_apps.plan import chosen, plan_topics
from fluvial.stream_apps.worker import Worker
from fluvial.transport.available import FromAvailable
from fluvial.transport.publisher import Publisher

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


async def run_together(settings: Settings, catalog: Catalog, from_available: FromAvailable | None = None) -> None:
    """Run worker, sink and ticker until SIGINT or SIGTERM; ``from_available``: after which gaps they may go on.

    Raises:
        FluvialError: what ended one of them.
    """
    with Registry(settings.registry) as registry:
        worker = build_worker(settings, catalog, registry, from_available)
        sink = build_sink(settings, catalog, registry, from_available)
        try:
            async with Publisher(settings.kafka) as publisher:
                ticker = new_ticker(settings, live_topics(settings, catalog), publisher)
                await run_apps([worker.app, sink.app], ticker.run(asyncio.Event()))
        finally:
            sink.close()


async def run_until_caught_up(settings: Settings, catalog: Catalog, report: Report = silent) -> None:
    """Run worker and sink until everything that is in the topics is in Cassandra, open windows as early rows.

    No ticks are published: what is in the log decides, not the time of day.

    Raises:
        FluvialError: what ended one of them before that.
    """
    plans = plan_topics(chosen(catalog.pipelines, settings.worker.pipelines))
    progress = GroupProgress(settings.kafka)
    with Registry(settings.registry) as registry:
        worker, sink = build_worker(settings, catalog, registry), build_sink(settings, catalog, registry)
        try:
            await run_apps([worker.app, sink.app], _caught_up(settings, progress, worker, sink, set(plans), report))
        finally:
            sink.close()


async def _caught_up(
    settings: Settings, progress: GroupProgress, worker: Worker, sink: Sink, topics: set[str], report: Report
) -> None:
    await worker.assigned.wait()
    # Committed offsets are hints: a worker of a new generation, or with a new pipeline, is behind them.
    await _until_no_lag(progress, settings.worker.group, topics, "worker", report, worker)
    await worker.finish()
    await worker.publish_open_rows()
    await _until_no_lag(progress, settings.sink.group, {t.name for t in sink.app.batch_topics}, "sink", report)
    log.info("caught up: everything that was in the topics is in Cassandra")


async def _until_no_lag(
    progress: GroupProgress, group: str, topics: set[str], name: str, report: Report, worker: Worker | None = None
) -> None:
    """Return when the group has handled all there is, and that has made nothing new to handle."""
    ends = None
    while True:
        positions = await asyncio.to_thread(progress.positions, group, topics)
        mine = {(tp.topic, tp.partition): s.next_offset for tp, s in worker.stages.items()} if worker else {}
        lag = sum(p.end - max(mine.get((p.topic, p.partition), p.committed), p.begin) for p in positions)
        report(Step(name, f"{lag:,} records to go" if lag else "ready: caught up"))
        seen = {(p.topic, p.partition): p.end for p in positions}
        if lag == 0 and seen == ends:
            return
        ends = seen
        await asyncio.sleep(POLL_SECONDS)
