"""The private parts of Faust, mode and aiokafka that the transport stands on: an upgrade that moves one fails here."""

import dis
import inspect
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import numpy as np
import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as faust_driver
from faust.transport.drivers import by_url

from fluvial.settings import KafkaSettings
from fluvial.transport import consumer, driver
from fluvial.transport import parse as parse_module
from fluvial.transport import walk as walk_module
from fluvial.transport.app import BatchApp, BatchTopic, batch_app
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.consumer_thread import ConsumerThread
from fluvial.transport.fetch import compile_kernels, read_batches
from fluvial.transport.stream import AckOnResume
from support.record_batches import Rec, build, marker


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("package", "pinned"), [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")]
)
def test_the_versions_are_those_the_seams_were_read_in(package: str, pinned: str) -> None:
    assert version(package) == pinned


def test_the_url_scheme_leads_to_our_transport() -> None:
    assert by_url("kafka+batch://broker:9092") is driver.Transport
    assert by_url("kafka://broker:9092") is faust_driver.Transport


# --- aiokafka's fetcher


def test_fetch_responses_are_handled_by_one_method_that_makes_both_classes_by_name() -> None:
    names = fetcher.Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords", "FetchResult"} <= set(names)
    assert parameters(fetcher.PartitionRecords) == [
        "tp",
        "records",
        "aborted_transactions",
        "fetch_offset",
        "key_deserializer",
        "value_deserializer",
        "check_crcs",
        "isolation_level",
    ]


class Response:
    """A fetch response, version 11."""

    API_VERSION = 11

    def __init__(self, topic: str, raw: bytes, aborted: list[tuple[int, int]]) -> None:
        self.topics = [(topic, [(0, 0, 100, 90, 0, aborted, -1, raw)])]


class PartitionState:
    """What aiokafka keeps of an assigned partition."""

    has_valid_position = True
    paused = False
    highwater = lso = timestamp = None

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, position: int) -> None:
        self.position = position


async def fetched(
    topic: str, raw: bytes, *, offset: int = 0, aborted: list[tuple[int, int]] | None = None
) -> tuple[FetchResult | None, PartitionState]:
    """Let a fetcher with our seam handle a response for ``topic``; only the topic "batched" is read in batches."""
    state = PartitionState(offset)
    assignment = SimpleNamespace(active=True, state_value=lambda tp: state)

    async def send(node: int, request: Any) -> Response:
        return Response(topic, raw, aborted or [])

    stub = SimpleNamespace(
        _client=SimpleNamespace(send=send),
        _client_rack=None,
        _records={},
        _key_deserializer=None,
        _value_deserializer=None,
        _check_crcs=True,
        _isolation_level=fetcher.READ_COMMITTED,
        _prefetch_backoff=0.1,
        _preferred_read_replica={},
    )
    read_batches(stub, frozenset({"batched"}))
    request = SimpleNamespace(topics=[(topic, [(0, offset, 1 << 20)])])
    await stub._proc_fetch_request(assignment, 1, request)
    return stub._records.get(TopicPartition(topic, 0)), state


RAW = build([Rec(i, 0, None, b"%d" % i) for i in range(3)], base_offset=5)


async def test_a_batch_topic_yields_one_batch_per_fetched_partition_and_the_position_moves() -> None:
    raw = RAW + build([Rec(0, 0, None, b"aborted")], base_offset=8, producer_id=3, transactional=True)
    result, state = await fetched("batched", raw + marker(9, 3, commit=False), offset=6, aborted=[(3, 8)])
    [record] = result.getall()
    batch = record.value
    assert isinstance(batch, FetchedBatch)
    assert (batch.topic, batch.partition, batch.first_offset, batch.next_offset) == ("batched", 0, 6, 10)
    assert record.offset == 9
    assert batch.columns().offset.tolist() == [6, 7]
    assert batch.columns().next_offset == 10
    assert state.position == 10
    assert (state.highwater, state.lso) == (100, 90)
    assert not result.has_more()


def test_reading_compiles_nothing_once_the_kernels_are_compiled() -> None:
    compile_kernels()
    before = [len(kernel.signatures) for kernel in (walk_module._count, walk_module._read, parse_module._parse)]
    headers = walk_module.walk(RAW)
    parse_module.parse("t", 0, 6, RAW, headers, np.array([0]), 8)
    after = [len(kernel.signatures) for kernel in (walk_module._count, walk_module._read, parse_module._parse)]
    assert before == after


async def test_a_batch_that_was_fetched_before_a_seek_is_not_handed_out() -> None:
    result, state = await fetched("batched", RAW, offset=5)
    state.position = 0
    assert result.getall() == []
    assert state.position == 0


async def test_other_topics_of_the_same_consumer_yield_records_as_ever() -> None:
    result, state = await fetched("single", RAW, offset=6)
    assert [(r.offset, r.value) for r in result.getall()] == [(6, b"1"), (7, b"2")]
    assert state.position == 8


async def test_an_empty_response_yields_nothing() -> None:
    result, state = await fetched("batched", b"", offset=6)
    assert result is None
    assert state.position == 6


async def test_other_consumers_of_the_process_are_not_changed() -> None:
    await fetched("batched", RAW)
    assert fetcher.Fetcher._proc_fetch_request.__globals__["PartitionRecords"] is fetcher.PartitionRecords
    assert fetcher.MemoryRecords is aiokafka.record.memory_records.MemoryRecords


@pytest.mark.parametrize(
    "name",
    [
        "_isolation_level",
        "_auto_offset_reset",
        "_max_partition_fetch_bytes",
        "_fetch_min_bytes",
        "_fetch_max_bytes",
        "_fetch_max_wait_ms",
        "_retry_backoff_ms",
    ],
)
def test_the_consumers_options_are_read_when_it_starts(name: str) -> None:
    assert name in aiokafka.AIOKafkaConsumer.__init__.__code__.co_names
    assert name in aiokafka.AIOKafkaConsumer.start.__code__.co_names


def test_the_clients_request_timeout_is_read_when_it_connects() -> None:
    assert "_request_timeout_ms" in aiokafka.client.AIOKafkaClient._get_conn.__code__.co_names
    assert "_request_timeout_ms" in aiokafka.AIOKafkaConsumer.__init__.__code__.co_names
    assert "_retry_backoff" in aiokafka.client.AIOKafkaClient.__init__.__code__.co_names


# --- Faust's consumer


OVERRIDDEN = (
    "perform_seek",
    "seek_to_committed",
    "seek",
    "ack",
    "_to_message",
    "_wait_for_ack",
    "_filter_tps_with_pending_acks",
    "_new_offset",
    "_should_commit",
    "_add_gap",
    "force_commit",
    "getmany",
    "_wait_next_records",
    "on_buffer_drop",
    "resume_partitions",
    "_drain_messages",
    "on_partitions_revoked",
    "wait_empty",
)


@pytest.mark.parametrize("name", [*OVERRIDDEN, "track_message", "commit_and_end_transactions"])
def test_what_is_overridden_exists_with_the_same_parameters(name: str) -> None:
    assert parameters(getattr(faust_driver.Consumer, name)) == parameters(getattr(consumer.Consumer, name))


@pytest.mark.parametrize(
    "name",
    ["_create_worker_consumer", "on_start", "highwater", "close", "_stopped_set", "_fetch_records", "on_thread_stop"],
)
def test_what_is_overridden_in_the_thread_exists_with_the_same_parameters(name: str) -> None:
    thread = faust_driver.AIOKafkaConsumerThread
    assert parameters(getattr(thread, name)) == parameters(getattr(ConsumerThread, name))


def test_partitions_are_assigned_through_the_consumers_listener() -> None:
    assert "RebalanceListener" in faust_driver.AIOKafkaConsumerThread.__post_init__.__code__.co_names
    assert parameters(faust_driver.ConsumerRebalanceListener.on_partitions_assigned) == ["self", "assigned"]
    assert "_is_changelog_tp" in dir(faust_driver.Consumer)


def test_commits_ask_for_the_pending_partitions_their_offsets_and_whether_to() -> None:
    names = {
        name
        for method in ("force_commit", "_commit_tps", "_filter_committable_offsets")
        for name in inspect.unwrap(getattr(faust_consumer.Consumer, method)).__code__.co_names
    }
    assert {"_filter_tps_with_pending_acks", "_new_offset", "_should_commit", "_commit_offsets"} <= names


def test_the_drain_loop_takes_messages_from_getmany_and_waits_for_the_flow() -> None:
    names = faust_consumer.Consumer._drain_messages.__code__.co_names
    assert {"callback", "getmany", "_read_offset", "_add_gap", "suspend_flow"} <= set(names)


def test_rebalances_and_stops_drain_through_wait_empty() -> None:
    for method in ("_on_partitions_revoked", "_stop_consumer"):
        assert "_consumer_wait_empty" in getattr(faust.App, method).__code__.co_names
    assert "wait_empty" in faust.App._consumer_wait_empty.__code__.co_names
    assert batch_app("g", KafkaSettings(), topics=[]).conf.stream_wait_empty


# --- streams, topics, agents


def test_iterating_a_stream_runs_our_generator_with_and_without_the_compiled_one() -> None:
    names = set(faust.Stream.__aiter__.__code__.co_names)
    assert {"_c_aiter", "_py_aiter"} <= names
    assert AckOnResume._c_aiter is AckOnResume._py_aiter


def stored(maker: Any) -> set[str]:
    """Return the attributes that a function sets."""
    return {str(i.argval) for i in dis.get_instructions(maker) if i.opname == "STORE_ATTR"}


def shadowed(ours: type, base: type) -> set[str]:
    """Return which names of the base, its instances' attributes included, our class has too."""
    makers = [vars(c)["__init__"] for c in base.__mro__ if "__init__" in vars(c)]
    inherited = {name for maker in makers if inspect.isfunction(maker) for name in stored(maker)}
    stock = set(dir(base)) | {name for c in base.__mro__ for name in vars(c).get("__annotations__", {})} | inherited
    mine = set(vars(ours)) | (stored(ours.__init__) if "__init__" in vars(ours) else set())
    return {name for name in mine & stock if not name.startswith("__")} - {"_abc_impl", "logger"}


def test_our_classes_overshadow_nothing_by_accident() -> None:
    assert shadowed(AckOnResume, faust.Stream) == {"_py_aiter", "_c_aiter", "ack"}
    assert shadowed(BatchApp, faust.App) == {"on_started_init_extra_services", "start", "stop"}
    assert shadowed(consumer.Consumer, faust_driver.Consumer) == {
        *OVERRIDDEN,
        "_new_consumer_thread",
        "RebalanceListener",
    }


def test_the_app_uses_our_classes_and_a_bounded_buffer() -> None:
    app = batch_app("g", KafkaSettings(), topics=[BatchTopic("t")], buffered_batches=3)
    topic = app.batch_topic("t")
    assert isinstance(app.stream(topic), AckOnResume)
    queue = topic.clone(is_iterator=False).queue
    assert (queue.pressure_high_size, queue.pressure_drop_size) == (3, 1)
    paused: list[str] = []
    resumed: list[str] = []

    def resume() -> None:
        resumed.append("p")

    for _ in range(5):
        queue.put_nowait_enhanced("batch", on_pressure_high=lambda: paused.append("p"), on_pressure_drop=resume)
    assert (paused, queue.full()) == (["p"], False)
    for _ in range(5):
        queue.get_nowait()
    assert resumed == ["p"]


async def test_an_opaque_value_reaches_the_agent_and_each_stream_holds_its_own_handle() -> None:
    app = batch_app("g", KafkaSettings(), topics=[BatchTopic("t")])
    batch = FetchedBatch("t", 0, 0, 1, 10, lambda: None)
    message = SimpleNamespace(value=batch, headers=None, topic="t", partition=0, offset=0)
    first, second = [await app.batch_topic("t").decode(message, propagate=True) for _ in range(2)]
    first.value.hold()
    assert (first.value.held, second.value.held, batch.held) == (True, False, False)


def test_decode_errors_go_through_the_topics_handlers() -> None:
    names = set(faust.Topic._compile_decode.__code__.co_names)
    assert {"on_key_decode_error", "on_value_decode_error"} <= names


def test_an_agents_task_runs_through_execute_actor() -> None:
    assert "_execute_actor" in faust.Agent._prepare_actor.__code__.co_names
