"""Workers that come and go all the time: every record is handled once, in order."""

import asyncio

import pytest
from faust.types import TP

from fluvial.settings import KafkaSettings
from fluvial.transport.app import BatchApp
from support.transport import app_for, committed, eventually, fresh_topic, group_id, produce, running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PARTITIONS = 4
ROUNDS = 8


async def test_workers_that_come_and_go_lose_and_repeat_nothing(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka, partitions=PARTITIONS) as name:
        group = group_id()
        done: dict[TP, int] = {}
        seen: dict[TP, list[int]] = {TP(name, p): [] for p in range(PARTITIONS)}

        def worker() -> BatchApp:
            async def positions(tps: frozenset[TP]) -> dict[TP, int]:
                await asyncio.sleep(0.05)
                return {tp: done[tp] for tp in tps if tp in done}

            app = app_for(kafka, name, group, positions=positions, fetch_bytes=4_000, buffered_batches=3)

            @app.agent(app.batch_topic(name))
            async def collect(stream):
                async for batch in stream:
                    tp = TP(batch.topic, batch.partition)
                    columns = await asyncio.to_thread(batch.columns)
                    await asyncio.sleep(0.02)
                    seen[tp].extend(columns.offset.tolist())
                    done[tp] = batch.next_offset

            return app

        published = 0

        async def publish() -> None:
            nonlocal published
            while True:
                for p in range(PARTITIONS):
                    await asyncio.to_thread(produce, kafka, name, [b"x" * 100] * 20, partition=p)
                published += 20
                await asyncio.sleep(0.1)

        publishing = asyncio.ensure_future(publish())
        async with running(worker()):
            for _ in range(ROUNDS):
                async with running(worker()):
                    await asyncio.sleep(1.5)
                await asyncio.sleep(0.5)
            publishing.cancel()
            await asyncio.wait([publishing])
            await eventually(lambda: min(map(len, seen.values())) >= published, 60)
            ends = [offsets[-1] + 1 for offsets in seen.values()]
            await eventually(lambda: committed(kafka, group, name, PARTITIONS) == ends)
        assert all(offsets == list(range(len(offsets))) for offsets in seen.values())
