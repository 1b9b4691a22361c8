"""What is acknowledged, what never is, and where a worker reads on: on a real Kafka."""

import asyncio
import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.types import TP

from fluvial.errors import ProvisioningError, TransportError
from fluvial.settings import KafkaSettings
from fluvial.transport.app import BatchTopic, batch_app
from fluvial.transport.available import FromAvailable, Gap, GapPolicy, OffsetsGoneError, Start
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.connection import librdkafka_config
from support.transport import (
    app_for,
    committed,
    ends,
    eventually,
    failure_of,
    fresh_topic,
    group_id,
    produce,
    running,
)

pytestmark = [
    pytest.mark.integration,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NONE = -1001


def delete_before(kafka: KafkaSettings, name: str, offset: int) -> None:
    """Delete records as retention does."""
    admin = AdminClient(librdkafka_config(kafka))
    for deleted in admin.delete_records([TopicPartition(name, 0, offset)]).values():
        deleted.result(30)


def members(kafka: KafkaSettings, group: str) -> int:
    """Return how many members a group has."""
    admin = AdminClient(librdkafka_config(kafka))
    return len(admin.describe_consumer_groups([group])[group].result(30).members)


class BadDay(Exception):
    """What an agent of these tests raises."""


async def test_an_exception_is_never_acknowledged_and_the_next_worker_reads_the_batch_again(
    kafka: KafkaSettings,
) -> None:
    with fresh_topic(kafka) as name:
        group = group_id()
        produce(kafka, name, [b"good"])
        first = app_for(kafka, name, group)

        @first.agent(first.batch_topic(name))
        async def fails(stream):
            async for batch in stream:
                if batch.first_offset >= 1:
                    raise BadDay
                await eventually(lambda: committed(kafka, group, name) == [0])
                produce(kafka, name, [b"bad"])

        assert isinstance(await failure_of(first), BadDay)
        assert committed(kafka, group, name)[0] <= 1

        second = app_for(kafka, name, group)
        seen: list[int] = []

        @second.agent(second.batch_topic(name))
        async def works(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(second):
            await eventually(lambda: committed(kafka, group, name) == [2])
        assert 1 in seen


async def test_a_per_event_agent_that_raises_acknowledges_nothing_either(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as batched, fresh_topic(kafka) as single:
        produce(kafka, single, [b"1", b"2", b"3"])
        group = group_id()
        app = app_for(kafka, batched, group)

        @app.agent(app.batch_topic(batched))
        async def batches(stream):
            async for _ in stream:
                pass

        @app.agent(app.topic(single))
        async def each(stream):
            async for value in stream:
                if value == b"2":
                    raise BadDay

        assert isinstance(await failure_of(app), BadDay)
        assert committed(kafka, group, single)[0] in (NONE, 0, 1)


async def test_a_take_that_is_torn_down_acknowledges_nothing(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as batched, fresh_topic(kafka) as single:
        produce(kafka, single, [b"%d" % i for i in range(10)])
        group = group_id()
        app = app_for(kafka, batched, group)

        @app.agent(app.topic(single))
        async def each(stream):
            async for _ in stream.take(10, within=1):
                raise BadDay

        assert isinstance(await failure_of(app), BadDay)
        assert committed(kafka, group, single)[0] in (NONE, 0)


async def test_an_event_whose_block_raises_is_not_acknowledged(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as batched, fresh_topic(kafka) as single:
        produce(kafka, single, [b"1", b"2", b"3"])
        group = group_id()
        app = app_for(kafka, batched, group)

        @app.agent(app.topic(single))
        async def each(stream):
            async for event in stream.noack().events():
                async with event:
                    if event.value == b"2":
                        raise BadDay

        assert isinstance(await failure_of(app), BadDay)
        assert committed(kafka, group, single)[0] in (NONE, 0, 1)


async def test_a_stream_without_acknowledgements_leaves_them_to_the_batches(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        for _ in range(3):
            produce(kafka, name, [b"x" * 1000] * 10)
        group = group_id()
        app = app_for(kafka, name, group, fetch_bytes=8_000)
        taken: list[FetchedBatch] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream.noack():
                taken.append(batch)  # noqa: PERF401 — one at a time is the point

        async with running(app):
            await eventually(lambda: bool(taken) and taken[-1].next_offset == 30)
            assert committed(kafka, group, name) == [0]
            for batch in taken:
                batch.ack()
            await eventually(lambda: committed(kafka, group, name) == [30])


@pytest.mark.parametrize("instance_id", ["worker-1", "auto"])
async def test_a_static_member_that_is_started_again_comes_back_without_a_rebalance(
    kafka: KafkaSettings, instance_id: str
) -> None:
    with fresh_topic(kafka) as name:
        group = group_id()
        for round_ in (1, 2):
            produce(kafka, name, [b"1"])
            app = app_for(kafka, name, group, instance_id=instance_id)
            app.leaves_group = False  # as after SIGTERM

            @app.agent(app.batch_topic(name))
            async def collect(stream):
                async for _ in stream:
                    pass

            async with running(app):
                await eventually(lambda: committed(kafka, group, name) == [round_])  # noqa: B023
                assert app.consumer_generation_id == 1
        assert members(kafka, group) == 1


async def test_a_static_member_that_is_stopped_for_good_leaves_its_partitions_at_once(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka, partitions=2) as name:
        group = group_id()
        apps = [app_for(kafka, name, group, instance_id="auto") for _ in range(2)]
        for app in apps:

            @app.agent(app.batch_topic(name))
            async def collect(stream):
                async for _ in stream:
                    pass

        first, second = apps
        async with running(second):
            async with running(first):
                await eventually(lambda: len(first.consumer.prefixes) == len(second.consumer.prefixes) == 1)
                names = {app.conf.consumer_group_instance_id for app in apps}
                assert len(names) == 2
            stopped = time.monotonic()
            await eventually(lambda: len(second.consumer.prefixes) == 2)
            assert time.monotonic() - stopped < 5  # the session is 6 s
        assert members(kafka, group) == 0


async def test_a_record_that_cannot_be_decoded_stops_the_worker_unacknowledged(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as batched, fresh_topic(kafka) as single:
        produce(kafka, single, [b'{"a": 1}', b"not json"])
        group = group_id()
        app = app_for(kafka, batched, group)

        @app.agent(app.topic(single, value_serializer="json"))
        async def each(stream):
            async for _ in stream:
                pass

        error = await failure_of(app)
        assert isinstance(error, TransportError)
        assert f"{single}[0]@1" in str(error)
        assert committed(kafka, group, single)[0] in (NONE, 0, 1)


async def test_a_panic_of_native_code_stops_the_worker(kafka: KafkaSettings) -> None:
    class Panic(BaseException):
        """As pyo3's PanicException."""

    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"1"])
        app = app_for(kafka, name, group_id())

        @app.agent(app.batch_topic(name))
        async def fails(stream):
            async for _ in stream:
                raise Panic

        error = await failure_of(app)
        assert isinstance(error, TransportError)
        assert "Panic" in str(error)


async def test_batches_finished_out_of_order_commit_only_the_finished_prefix(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        for _ in range(5):
            produce(kafka, name, [b"x" * 1000] * 20)
        group = group_id()
        app = app_for(kafka, name, group, fetch_bytes=20_000)
        held: list[FetchedBatch] = []

        @app.agent(app.batch_topic(name))
        async def hold(stream):
            async for batch in stream:
                batch.hold()
                held.append(batch)

        async with running(app):
            await eventually(lambda: bool(held) and held[-1].next_offset == 100)
            assert len(held) >= 4
            for batch in held[1:]:
                batch.ack()
            await app.consumer.commit()
            assert committed(kafka, group, name) == [0]
            held[0].ack()
            await eventually(lambda: committed(kafka, group, name) == [100])


async def test_a_position_whose_records_are_deleted_stops_the_worker_with_an_explanation(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"%d" % i for i in range(10)])
        delete_before(kafka, name, 6)

        async def positions(tps: frozenset[TP]) -> dict[TP, int]:
            return {TP(name, 0): 4}

        app = app_for(kafka, name, group_id(), positions=positions)

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for _ in stream:
                pass

        error = await failure_of(app)
        assert isinstance(error, OffsetsGoneError)
        assert "2 offsets were deleted unread; the first record left is of 20" in str(error)
        [gap] = error.gaps
        assert (gap.wanted, gap.first, gap.end) == (4, 6, 10)


async def test_a_gap_that_is_accepted_is_told_and_reading_goes_on_after_it(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"%d" % i for i in range(10)])
        delete_before(kafka, name, 6)
        skipped: list[Gap] = []

        async def on_skipped(gap: Gap) -> None:
            skipped.append(gap)

        async def positions(tps: frozenset[TP]) -> dict[TP, Start]:
            return {TP(name, 0): Start(2, required=4)}

        gaps = GapPolicy(FromAvailable([f"{name}:0@4"]), on_skipped)
        app = app_for(kafka, name, group := group_id(), positions=positions, gaps=gaps)
        seen: list[int] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: committed(kafka, group, name) == [10])
        assert seen == [6, 7, 8, 9]
        assert [(g.wanted, g.first, g.lost) for g in skipped] == [(4, 6, 2)]


async def test_what_is_not_required_may_be_gone(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"%d" % i for i in range(10)])
        delete_before(kafka, name, 6)

        async def positions(tps: frozenset[TP]) -> dict[TP, Start]:
            return {TP(name, 0): Start(0, required=8)}

        app = app_for(kafka, name, group := group_id(), positions=positions)
        seen: list[int] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: committed(kafka, group, name) == [10])
        assert seen == [6, 7, 8, 9]


async def test_a_committed_offset_that_is_gone_does_not_matter_where_the_app_has_a_position(
    kafka: KafkaSettings,
) -> None:
    with fresh_topic(kafka) as name:
        group = group_id()
        produce(kafka, name, [b"%d" % i for i in range(10)])
        reader = Consumer(librdkafka_config(kafka) | {"group.id": group})
        reader.commit(offsets=[TopicPartition(name, 0, 2)], asynchronous=False)
        reader.close()
        delete_before(kafka, name, 6)

        async def positions(tps: frozenset[TP]) -> dict[TP, int]:
            await asyncio.sleep(1)  # long enough for a client that starts by itself to run into the gap
            return {TP(name, 0): 8}

        app = app_for(kafka, name, group, positions=positions)
        seen: list[int] = []

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await eventually(lambda: committed(kafka, group, name) == [10])
        assert seen == [8, 9]


async def test_a_position_beyond_the_end_stops_the_worker_with_an_explanation(kafka: KafkaSettings) -> None:
    async def positions(tps: frozenset[TP]) -> dict[TP, int]:
        return {TP(name, 0): 1_000_000}

    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"1"])
        app = app_for(kafka, name, group_id(), positions=positions)

        @app.agent(app.batch_topic(name))
        async def collect(stream):
            async for _ in stream:
                pass

        error = await failure_of(app)
        assert isinstance(error, TransportError)
        assert "from offset 1000000, but the log has the offsets 0 to 0 now: it was truncated" in str(error)


async def test_a_missing_topic_or_another_partition_count_is_refused_at_start(kafka: KafkaSettings) -> None:
    missing = app_for(kafka, "test-that-nobody-made", group_id())
    assert isinstance(await failure_of(missing), ProvisioningError)
    with fresh_topic(kafka, partitions=2) as name:
        other = app_for(kafka, name, group_id(), partitions=4)
        error = await failure_of(other)
        assert isinstance(error, ProvisioningError)
        assert "has 2 partitions, not 4" in str(error)


async def test_a_held_batch_that_is_never_acknowledged_is_a_stall(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"1"])
        app = app_for(kafka, name, group_id(), stall_seconds=2)

        @app.agent(app.batch_topic(name))
        async def forgets(stream):
            async for batch in stream:
                batch.hold()

        error = await failure_of(app)
        assert isinstance(error, TransportError)
        assert f"{name}[0] at 0 of 1" in str(error)


async def test_an_expected_wait_is_not_a_stall(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"1"])
        group = group_id()
        app = app_for(kafka, name, group, stall_seconds=2)

        @app.agent(app.batch_topic(name))
        async def waits(stream):
            async for _ in stream:
                with app.expected_wait("the database is away"):
                    await asyncio.sleep(5)

        async with running(app):
            await eventually(lambda: committed(kafka, group, name) == ends(kafka, name))


async def test_a_slow_agent_does_not_hold_up_another_topic(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka, partitions=4) as slow, fresh_topic(kafka) as quick:
        for _ in range(10):
            for partition in range(4):
                produce(kafka, slow, [b"x" * 1000] * 10, partition=partition)
        app = batch_app(
            group_id(), kafka, topics=[BatchTopic(slow), BatchTopic(quick)], fetch_bytes=12_000, buffered_batches=2
        )
        at_work, go_on, seen = asyncio.Event(), asyncio.Event(), []

        @app.agent(app.batch_topic(slow))
        async def waits(stream):
            async for _ in stream:
                at_work.set()
                await go_on.wait()

        @app.agent(app.batch_topic(quick))
        async def reads(stream):
            async for batch in stream:
                seen.extend(batch.columns().offset.tolist())

        async with running(app):
            await at_work.wait()
            for n in range(1, 11):
                produce(kafka, quick, [b"1"])
                await eventually(lambda: len(seen) == n, 10)  # noqa: B023
            go_on.set()


async def test_two_workers_share_and_hand_over_without_losing_or_repeating(kafka: KafkaSettings) -> None:
    partitions, total = 4, 400
    with fresh_topic(kafka, partitions=partitions) as name:
        group = group_id()
        done: dict[TP, int] = {}  # the "checkpoints": where each partition is to be read on
        seen: dict[TP, list[int]] = {TP(name, p): [] for p in range(partitions)}
        revoked: list[frozenset[TP]] = []

        def worker() -> object:
            async def positions(tps: frozenset[TP]) -> dict[TP, int]:
                return {tp: done[tp] for tp in tps if tp in done}

            async def on_revoked(tps: frozenset[TP]) -> None:
                revoked.append(tps)

            app = app_for(kafka, name, group, positions=positions, on_revoked=on_revoked, fetch_bytes=5_000)

            @app.agent(app.batch_topic(name))
            async def collect(stream):
                async for batch in stream:
                    tp = TP(batch.topic, batch.partition)
                    offsets = batch.columns().offset.tolist()
                    await asyncio.sleep(0.01)
                    seen[tp].extend(offsets)
                    done[tp] = batch.next_offset

            return app

        def publish(count: int) -> None:
            for p in range(partitions):
                produce(kafka, name, [b"x" * 200] * (count // partitions), partition=p)

        first, second = worker(), worker()
        async with running(first):
            publish(total // 2)
            await eventually(lambda: sum(map(len, seen.values())) >= total // 4)
            async with running(second):
                await eventually(lambda: len(second.consumer.prefixes) == 2 and len(first.consumer.prefixes) == 2)
                publish(total // 2)
                await eventually(lambda: sum(map(len, seen.values())) >= total)
            await eventually(lambda: len(first.consumer.prefixes) == partitions)
            await eventually(lambda: committed(kafka, group, name, partitions) == [total // partitions] * partitions)
        assert all(offsets == list(range(total // partitions)) for offsets in seen.values())
        assert frozenset(seen) in revoked  # the eager protocol takes everything, and stopping hands over the rest


async def test_an_agent_that_is_stuck_does_not_hold_a_rebalance_for_ever(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka, partitions=2) as name:
        produce(kafka, name, [b"1"])
        group = group_id()
        stuck, other = (app_for(kafka, name, group, drain_seconds=2) for _ in range(2))
        at_work = asyncio.Event()

        @stuck.agent(stuck.batch_topic(name))
        async def hangs(stream):
            async for _ in stream:
                at_work.set()
                await asyncio.sleep(3600)

        @other.agent(other.batch_topic(name))
        async def works(stream):
            async for _ in stream:
                pass

        failing = asyncio.ensure_future(failure_of(stuck, 60))
        await at_work.wait()
        async with running(other):
            error = await failing
            assert isinstance(error, TransportError)
            assert "did not finish" in str(error)
            await eventually(lambda: committed(kafka, group, name, 2)[0] == 1)


async def test_stopping_commits_what_is_finished_and_asks_for_the_hand_over_once(kafka: KafkaSettings) -> None:
    with fresh_topic(kafka) as name:
        produce(kafka, name, [b"1", b"2"])
        group = group_id()
        revoked: list[frozenset[TP]] = []
        held: list[FetchedBatch] = []

        async def on_revoked(tps: frozenset[TP]) -> None:
            revoked.append(tps)
            for batch in held:
                batch.ack()

        app = app_for(kafka, name, group, on_revoked=on_revoked)
        app.conf.broker_commit_interval = 60.0

        @app.agent(app.batch_topic(name))
        async def hold(stream):
            async for batch in stream:
                batch.hold()
                held.append(batch)

        async with running(app):
            await eventually(lambda: bool(held) and held[-1].next_offset == 2)
        assert revoked == [frozenset({TP(name, 0)})]
        assert committed(kafka, group, name) == [2]
