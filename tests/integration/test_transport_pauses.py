"""Pausing partitions while a fetch is on its way loses and blocks nothing."""

import asyncio
from typing import Any

import pytest

from fluvial.settings import KafkaSettings
from support.transport import app_for, committed, eventually, fresh_topic, group_id, produce, running

pytestmark = [
    pytest.mark.integration,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


async def test_what_a_fetch_brings_after_a_pause_is_still_delivered(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"x"] * 10)
        group = group_id()
        app = app_for(kafka, name, group)
        seen: list[int] = []
        paused = 0

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: len(seen) == 10)
            consumer = app.consumer
            ask = consumer._wait_next_records

            async def ask_and_pause(timeout: float) -> Any:  # noqa: ASYNC109 -- the signature is Faust's
                nonlocal paused
                records, active = await ask(timeout)
                if records and not paused:
                    paused += 1
                    consumer.pause_partitions(consumer.assignment())
                return records, active

            consumer._wait_next_records = ask_and_pause
            published = 10
            while not paused:  # a fetch may have begun before
                await asyncio.to_thread(produce, kafka, name, [b"y"] * 10)
                published += 10
                await asyncio.sleep(0.2)
            consumer.resume_partitions(consumer.assignment())
            await asyncio.to_thread(produce, kafka, name, [b"z"] * 10)
            published += 10
            await eventually(lambda: len(seen) >= published, 20)
            await eventually(lambda: committed(kafka, group, name) == [published])
        assert seen == list(range(published))
