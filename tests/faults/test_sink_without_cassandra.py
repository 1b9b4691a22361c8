"""Cassandra stands still or dies under the sink: it pauses, says so, holds its offsets, and catches up by itself."""

import logging
import time
from collections.abc import Callable, Iterator

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.oracle.from_cassandra import read_table
from fluvial.settings import CassandraSettings, KafkaSettings
from fluvial.sinks.targets import result_target
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from support.sinking import MINUTE_MS, Row, encoded, minute_columns, publish, running_sink, shipped_tables
from support.transport import committed, eventually, fresh_topic

pytestmark = [
    pytest.mark.faults,
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NODE = "cassandra-1"
MINUTES = SENSOR_MINUTE.result_topic
TODAY_MS = int(time.time() * 1000) // 86_400_000 * 86_400_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A Cassandra node of this test's own."""
    own = LocalCluster(tmp_path_factory.mktemp("cassandra"), ClusterSpec(brokers=0, nodes=1, registry=False))
    own.start()
    yield own
    own.wipe()


@pytest.fixture(scope="module")
def tables(cluster: LocalCluster) -> Iterator[CassandraSettings]:
    settings = cluster.settings.cassandra.model_copy(update={"request_timeout_seconds": 2.0})
    with shipped_tables(settings.model_copy(update={"request_timeout_seconds": 60.0})) as found:
        yield found.model_copy(update={"request_timeout_seconds": 2.0})


def pause(cluster: LocalCluster) -> Callable[[], None]:
    cluster.pause(NODE)
    return lambda: cluster.resume(NODE)


def kill(cluster: LocalCluster) -> Callable[[], None]:
    cluster.kill(NODE)
    return lambda: cluster.start_server(NODE)


@pytest.mark.parametrize("fault", [pause, kill])
async def test_the_sink_pauses_holds_its_offsets_and_catches_up(
    kafka: KafkaSettings,
    cluster: LocalCluster,
    tables: CassandraSettings,
    fault: Callable[[LocalCluster], Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows: list[Row] = [(f"s{i % 30}", TODAY_MS - i // 30 * MINUTE_MS, float(i), 0, i) for i in range(3000)]
    values = encoded(MINUTES, minute_columns(rows))
    with fresh_topic(kafka) as topic, caplog.at_level(logging.WARNING):
        target = result_target(SENSOR_MINUTE.table)
        async with running_sink(kafka, tables, topic, MINUTES, target) as running:
            publish(kafka, topic, values[:1000])
            await running.catch_up()
            mend = fault(cluster)
            try:
                publish(kafka, topic, values[1000:])
                await eventually(lambda: running.sink.writer.paused, 60)
                assert committed(kafka, running.group, topic) == [1000]
                await eventually(lambda: bool(running.sink.app.consumer._paused_partitions), 10)
            finally:
                mend()
            await running.catch_up(90)
            assert not running.sink.writer.paused
            assert running.sink.writer.counts.in_flight == 0
            await eventually(lambda: not running.sink.app.consumer._paused_partitions, 10)
    found = read_table([tables.contact_points], tables.port, tables.keyspace, "sensor_minute")
    assert {(r["sensor_id"], r["window_start"]): r["mean"] for r in found} == {(r[0], r[1]): r[2] for r in rows}
    told = [r.message for r in caplog.records if r.name == "fluvial.sinks.writer"]
    assert "the sink pauses and holds its offsets" in told[0]
    assert "the sink goes on" in told[-1]


async def test_a_sink_that_is_stopped_while_cassandra_is_away_stops_at_once_and_loses_nothing(
    kafka: KafkaSettings, cluster: LocalCluster, tables: CassandraSettings
) -> None:
    values = encoded(MINUTES, minute_columns([("stopped", TODAY_MS, 1.0, 0, 1)]))
    target = result_target(SENSOR_MINUTE.table)
    with fresh_topic(kafka) as topic:
        async with running_sink(kafka, tables, topic, MINUTES, target) as first:
            await first.catch_up()
            cluster.pause(NODE)
            try:
                publish(kafka, topic, values)
                await eventually(lambda: first.sink.writer.paused, 60)
                begun = time.monotonic()
                await first.sink.app.stop()
                assert time.monotonic() - begun < 10
            finally:
                cluster.resume(NODE)
            assert committed(kafka, first.group, topic)[0] <= 0
        async with running_sink(kafka, tables, topic, MINUTES, target, group=first.group) as second:
            await second.catch_up()
    found = read_table([tables.contact_points], tables.port, tables.keyspace, "sensor_minute")
    assert "stopped" in {r["sensor_id"] for r in found}
