"""Records that were deleted before they were read: the command stops, says what is lost, and goes on only as chosen."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.schemas.declarations import MINUTE_MS
from fluvial.settings import CassandraSettings, KafkaSettings
from fluvial.sinks.targets import result_target
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from fluvial.transport.available import FromAvailable, OffsetsGoneError
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.publisher import OutRecord
from support.aside import Place, place_of_its_own, reading
from support.programs import FLUVIAL
from support.sinking import encoded, minute_columns, publish, running_sink, shipped_tables
from support.transport import committed, eventually, fresh_topic, group_id

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

START = 29_453_760 * MINUTE_MS


def delete_before(kafka: KafkaSettings, topic: str, offset: int) -> None:
    admin = AdminClient(librdkafka_config(kafka))
    for deleted in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        deleted.result(30)


def readings(first: int, count: int) -> list[OutRecord]:
    """Return one reading per ten seconds."""
    times = [(i, START + 10_000 * i) for i in range(first, first + count)]
    return [OutRecord(b"s1", reading("s1", t, float(i), i), timestamp=t) for i, t in times]


def environment(place: Place) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")}
    return kept | place.environment | {"FLUVIAL_WORKER__PIPELINES": place.catalog.pipelines[0].name}


def worker(place: Place, *arguments: str, until: Callable[[], bool]) -> tuple[int, str]:
    """Run ``fluvial worker`` until it ends, or a condition holds and it is asked to; return its status and stderr."""
    command = [FLUVIAL, "worker", *arguments]
    with subprocess.Popen(command, env=environment(place), stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and not until():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
        return process.returncode, told


def ledger(place: Place) -> str:
    done = subprocess.run([FLUVIAL, "ledger"], env=environment(place), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worker_explains_what_is_gone_and_goes_on_when_that_is_chosen(kafka: KafkaSettings, tmp_path: Path) -> None:
    with place_of_its_own(kafka, tmp_path) as place:
        group = place.settings.worker.group
        place.publish(readings(0, 30))
        assert place.work().records == 30
        place.publish(readings(30, 30))
        delete_before(kafka, place.topic, 47)

        status, told = worker(place, until=lambda: False)
        assert status == 1
        assert f"{place.topic}[0] is to be read on from offset 30, but the log has the offsets 47 to 59 now" in told
        assert "17 offsets were deleted unread; the first record left is of 20" in told
        assert f"fluvial worker --from-available {place.topic}:0@30; windows that lack events" in told
        assert "from about event time 2026-01-01T00:04:50Z to what was published at 20" in told
        assert [line[:7] for line in told.splitlines()[-2:]] == ["Error: ", "  Try: "]
        assert committed(kafka, group, place.topic) == [30]

        chosen = ("--from-available", f"{place.topic}:0@30")
        status, told = worker(place, *chosen, until=lambda: committed(kafka, group, place.topic) == [60])
        assert status == 0
        place.publish(readings(60, 10))
        line = place.work()
        assert (line.records, line.skipped, line.covered, line.adds_up) == (53, 17, 70, True)
        assert "SKIPPED" in ledger(place)


def test_a_worker_of_a_topic_that_was_made_anew_is_told_to_raise_the_generation(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with place_of_its_own(kafka, tmp_path) as place:
        place.publish(readings(0, 20))
        place.work()
        admin = AdminClient(librdkafka_config(kafka))
        admin.delete_topics([place.topic])[place.topic].result(30)
        remade = False
        while not remade:  # the deletion takes a moment
            remade = admin.create_topics([NewTopic(place.topic, 1, 1)])[place.topic].exception(30) is None
        place.publish(readings(20, 40))  # so that offset 20 is there again
        status, told = worker(place, "--from-available", "all", until=lambda: False)
        assert status == 1
        assert f"topic {place.topic} was deleted and created again since the checkpoint of its partition 0" in told
        assert "fluvial worker --generation 1" in told


async def test_a_sink_explains_what_is_gone_and_goes_on_when_that_is_chosen(
    kafka: KafkaSettings, cassandra: CassandraSettings
) -> None:
    declared, target = SENSOR_MINUTE.result_topic, result_target(SENSOR_MINUTE.table)
    rows = encoded(declared, minute_columns([("s", START + i * MINUTE_MS, 1.0, 0, i) for i in range(30)]))
    group = group_id()
    with shipped_tables(cassandra) as keyspace, fresh_topic(kafka) as topic:
        publish(kafka, topic, rows[:10])
        async with running_sink(kafka, keyspace, topic, declared, target, group=group) as sink:
            await sink.catch_up()
        publish(kafka, topic, rows[10:])
        delete_before(kafka, topic, 15)
        with pytest.raises(OffsetsGoneError, match=r"offset 10, .* 5 offsets were deleted unread") as stopped:
            async with running_sink(kafka, keyspace, topic, declared, target, group=group) as sink:
                await eventually(lambda: sink.sink.app.failure is not None)
        assert f"fluvial sink --from-available {topic}:0@10" in stopped.value.hint
        assert committed(kafka, group, topic) == [10]
        chosen = FromAvailable([f"{topic}:0"])
        async with running_sink(kafka, keyspace, topic, declared, target, group=group, from_available=chosen) as sink:
            await sink.catch_up()
            assert sink.sink.counts.read == 15
