"""Three Cassandra nodes, three replicas, quorum: one may die unnoticed, two may not, and nothing is lost."""

import time
from collections.abc import Iterator
from datetime import UTC

import pytest

from fluvial.cassandra import connected
from fluvial.cluster import ClusterSpec, LocalCluster
from fluvial.settings import CassandraSettings, KafkaSettings
from fluvial.sinks.targets import result_target
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from support.sinking import MINUTE_MS, Row, encoded, minute_columns, publish, running_sink, shipped_tables
from support.transport import committed, eventually, fresh_topic

pytestmark = [
    pytest.mark.faults,
    pytest.mark.integration,
    pytest.mark.timeout(600),
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MINUTES = SENSOR_MINUTE.result_topic
TODAY_MS = int(time.time() * 1000) // 86_400_000 * 86_400_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three Cassandra nodes of this test's own."""
    spec = ClusterSpec(brokers=0, nodes=3, registry=False, node_heap_mb=768)
    own = LocalCluster(tmp_path_factory.mktemp("cassandra"), spec)
    own.start()
    yield own
    own.wipe()


@pytest.fixture(scope="module")
def tables(cluster: LocalCluster) -> Iterator[CassandraSettings]:
    patient = cluster.settings.cassandra.model_copy(update={"request_timeout_seconds": 60.0})
    with shipped_tables(patient, replicas=3) as found:
        yield found.model_copy(update={"request_timeout_seconds": 3.0})


async def test_one_node_may_die_unnoticed_and_two_make_the_sink_wait(
    kafka: KafkaSettings, cluster: LocalCluster, tables: CassandraSettings
) -> None:
    rows: list[Row] = [(f"s{i % 200}", TODAY_MS - i // 200 * MINUTE_MS, float(i), 0, i) for i in range(6000)]
    values = encoded(MINUTES, minute_columns(rows))
    with fresh_topic(kafka) as topic:
        target = result_target(SENSOR_MINUTE.table)
        async with running_sink(kafka, tables, topic, MINUTES, target) as running:
            publish(kafka, topic, values[:2000])
            await running.catch_up(90)
            cluster.kill("cassandra-3")
            publish(kafka, topic, values[2000:4000])
            await running.catch_up(90)
            assert running.sink.writer.counts.pauses == 0
            cluster.kill("cassandra-2")
            publish(kafka, topic, values[4000:])
            await eventually(lambda: running.sink.writer.paused, 60)
            assert committed(kafka, running.group, topic) == [4000]
            cluster.start_server("cassandra-2")
            await running.catch_up(120)
        cluster.start_server("cassandra-3")
    # At quorum; the third node has yet to be told what it missed.
    with connected(tables, "read", keyspace=tables.keyspace) as session:
        found = session.execute("SELECT sensor_id, window_start, mean FROM sensor_minute", timeout=60)
        means = {(r.sensor_id, int(r.window_start.replace(tzinfo=UTC).timestamp() * 1000)): r.mean for r in found}
    assert means == {(r[0], r[1]): r[2] for r in rows}
