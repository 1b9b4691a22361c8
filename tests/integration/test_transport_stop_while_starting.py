"""An app that is told to stop while it starts: it stops, and leaves no event loop or socket to the garbage collector."""

import asyncio
import gc

import pytest

from fluvial.settings import KafkaSettings
from support.transport import app_for, fresh_topic, group_id, running

pytestmark = [
    pytest.mark.integration,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("after_seconds", [0.0, 0.02, 0.1, 0.3, 1.0])
async def test_a_start_that_is_broken_off_leaves_nothing_open(kafka: KafkaSettings, after_seconds: float) -> None:
    with fresh_topic(kafka) as name:
        app = app_for(kafka, name, group_id())

        @app.agent(app.batch_topic(name))
        async def read(stream):
            async for batch in stream:
                batch.columns()

        async with running(app):
            await asyncio.sleep(after_seconds)
        loops = [] if app._consumer is None else [app.consumer._thread.thread_loop]
        assert all(loop.is_closed() for loop in loops)
        del app, read, loops
        gc.collect()
