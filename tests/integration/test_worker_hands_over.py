"""A worker that is stopped hands its partitions over so that nothing is read twice."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fluvial.schemas.declarations import MINUTE_MS
from fluvial.schemas.registry import Registry
from fluvial.services.ledger import read_ledger
from fluvial.services.processors import build_worker
from fluvial.settings import KafkaSettings
from fluvial.stream_apps.stage import PartitionStage
from fluvial.stream_apps.worker import Worker
from fluvial.transport.app import FetchOptions
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.publisher import OutRecord, Publisher
from support.aside import Place, place_of_its_own, reading
from support.transport import committed, eventually, running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

START = 29_453_760 * MINUTE_MS
RECORDS, CHUNK = 3_000, 30


def small_fetches(place: Place, registry: Registry) -> Worker:
    """Return a worker that gets a few records at a time."""
    worker = build_worker(place.settings, place.catalog, registry)
    worker.app.fetch_options = FetchOptions(2_000)
    worker.app.conf.broker_heartbeat_interval = 0.5
    return worker


async def test_the_successor_of_a_stopped_worker_reads_nothing_again(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[tuple[int, int]] = []
    work = Worker._work

    def noted(self: Worker, stage: PartitionStage, batch: FetchedBatch) -> Any:
        handled.append((batch.first_offset, batch.next_offset))
        return work(self, stage, batch)

    monkeypatch.setattr(Worker, "_work", noted)
    with place_of_its_own(kafka, tmp_path) as place, Registry(place.settings.registry) as registry:
        group = place.settings.worker.group
        async with Publisher(kafka) as publisher:
            for first in range(0, RECORDS, CHUNK):
                chunk = range(first, first + CHUNK)
                records = [OutRecord(b"s", reading("s", START + 1000 * i, 1.0, i), timestamp=START) for i in chunk]
                await (await publisher.publish_records(place.topic, records))
        successor = small_fetches(place, registry)
        first_worker = small_fetches(place, registry)
        async with running(first_worker.app):
            await eventually(lambda: len(handled) > 3, 120)
            joining = asyncio.create_task(successor.app.start())
            await eventually(lambda: len(handled) > 8, 120)
        stopped_at = len(handled)
        await joining
        await eventually(lambda: committed(kafka, group, place.topic) == [RECORDS], 120)
        await successor.app.stop()
        (line,) = await asyncio.to_thread(read_ledger, place.settings, place.catalog)
    assert 0 < stopped_at < len(handled)
    assert [(a, b) for a, b in pairwise(handled) if a[1] != b[0]] == [], "read again, or skipped"
    assert (line.records, line.aggregated, line.skipped) == (RECORDS, RECORDS, 0)
