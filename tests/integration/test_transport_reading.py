"""Batches from a real Kafka: every codec, transactions, markers at the end, seeks, per-event agents beside."""

import asyncio
from itertools import pairwise

import pytest
from faust.types import TP

from fluvial.settings import KafkaSettings
from support.transport import (
    app_for,
    committed,
    ends,
    eventually,
    fresh_topic,
    group_id,
    produce,
    rows,
    running,
    transaction,
)

pytestmark = [
    pytest.mark.integration,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(kafka: KafkaSettings, codec: str) -> None:
    values = [f"value-{i}".encode() * 10 for i in range(2000)]
    with fresh_topic(kafka) as name:
        produce(kafka, name, values, codec=codec)
        app = app_for(kafka, name, group_id())
        seen: list[tuple[int, bytes | None]] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(rows(await asyncio.to_thread(batch.columns)))

        async with running(app):
            await eventually(lambda: len(seen) >= len(values))
    assert seen == list(enumerate(values))


async def test_aborted_transactions_are_not_seen_and_their_offsets_are_committed(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        for number, commit in enumerate([True, False, True, False]):
            with transaction(kafka, commit=commit) as producer:
                for i in range(3):
                    producer.produce(name, f"{number}-{i}".encode())
        group = group_id()
        app = app_for(kafka, name, group)
        seen: list[bytes | None] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(value for _, value in rows(batch.columns()))

        async with running(app):
            await eventually(lambda: len(seen) >= 6)
            await eventually(lambda: committed(kafka, group, name) == ends(kafka, name))
        assert seen == [b"0-0", b"0-1", b"0-2", b"2-0", b"2-1", b"2-2"]


async def test_an_open_transaction_holds_the_reader_back(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        app = app_for(kafka, name, group_id())
        seen: list[bytes | None] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(value for _, value in rows(batch.columns()))

        async with running(app):
            produce(kafka, name, [b"before"])
            await eventually(lambda: seen == [b"before"])
            with transaction(kafka, commit=True) as producer:
                producer.produce(name, b"inside")
                assert producer.flush(30) == 0
                produce(kafka, name, [b"after"])
                assert seen == [b"before"]
            await eventually(lambda: seen == [b"before", b"inside", b"after"])


async def test_positions_say_where_to_read_and_missing_ones_mean_earliest(kafka: KafkaSettings) -> None:
    asked: list[frozenset[TP]] = []

    async def positions(tps: frozenset[TP]) -> dict[TP, int]:
        asked.append(tps)
        return {TP(name, 0): 7}

    with fresh_topic(kafka, partitions=2) as name:
        for partition in (0, 1):
            produce(kafka, name, [b"%d" % i for i in range(10)], partition=partition, codec="lz4")
        group = group_id()
        app = app_for(kafka, name, group, positions=positions)
        seen: dict[int, list[int]] = {0: [], 1: []}

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen[batch.partition].extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: len(seen[0]) + len(seen[1]) >= 13)
            await eventually(lambda: committed(kafka, group, name, 2) == [10, 10])
        assert seen == {0: [7, 8, 9], 1: list(range(10))}
        assert asked == [frozenset({TP(name, 0), TP(name, 1)})]


async def test_a_seek_drops_what_was_buffered(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"%d" % i for i in range(100)])
        group = group_id()
        app = app_for(kafka, name, group)
        seen: list[int] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: len(seen) == 100)
            await app.consumer.seek(TP(name, 0), 60)
            await eventually(lambda: len(seen) == 140)
            await eventually(lambda: committed(kafka, group, name) == [100])
        assert seen == [*range(100), *range(60, 100)]


async def test_a_seek_while_batches_wait_delivers_nothing_stale(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"x" * 1000 for _ in range(400)])
        group = group_id()
        app = app_for(kafka, name, group, fetch_bytes=20_000, buffered_batches=4)
        seen: list[tuple[int, int]] = []
        at_work, go_on = asyncio.Event(), asyncio.Event()

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.append((batch.first_offset, batch.next_offset))
                at_work.set()
                await go_on.wait()

        async with running(app):
            await at_work.wait()
            await eventually(lambda: app.consumer.prefixes[TP(name, 0)].delivered > 60)
            await app.consumer.seek(TP(name, 0), 5)
            go_on.set()
            await eventually(lambda: seen[-1][1] == 400)
            await eventually(lambda: committed(kafka, group, name) == [400])
        after_seek = seen[1:]
        assert after_seek[0][0] == 5
        assert all(a[1] == b[0] for a, b in pairwise(after_seek))


async def test_a_per_event_agent_runs_beside_a_batch_agent(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as batched, fresh_topic(kafka) as single:
        produce(kafka, batched, [b"b%d" % i for i in range(50)], codec="zstd")
        produce(kafka, single, [b"s%d" % i for i in range(50)], codec="zstd")
        group = group_id()
        app = app_for(kafka, batched, group)
        seen: list[bytes | None] = []
        events: list[bytes] = []

        @app.agent(app.batch_topic(batched))
        async def batches(stream):
            async for batch in stream:
                seen.extend(value for _, value in rows(batch.columns()))

        @app.agent(app.topic(single, value_serializer="raw"))
        async def each(stream):
            async for value in stream:
                events.append(value)  # noqa: PERF401 — the point is one event at a time

        async with running(app):
            await eventually(lambda: len(seen) == 50 and len(events) == 50)
            await eventually(lambda: committed(kafka, group, single) == [50])
            await eventually(lambda: committed(kafka, group, batched) == [50])
        assert events == [b"s%d" % i for i in range(50)]
