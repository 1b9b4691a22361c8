"""Three nodes, three replicas: an audit of every replica by itself finds the one that differs, and repairs nothing.

pytest tests/faults/trials_audit_replicas.py
"""

from collections.abc import Iterator
from typing import Any

import pytest
from cassandra.query import SimpleStatement

from fluvial.cassandra import connected
from fluvial.cluster import LocalCluster
from fluvial.cluster.progress import silent
from fluvial.errors import AuditError
from fluvial.oracle.from_cassandra import NODE_LOCAL
from fluvial.services.audit_tables import views
from fluvial.services.auditing import Audit, Auditor, RowsAsked
from fluvial.settings import KafkaSettings, Settings
from support.audited import BASE, MINUTE, Deployment, deployment, story
from support.quorum import clusters
from support.quorum.clusters import own_cluster

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.timeout(500),
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes of these trials' own."""
    with own_cluster(tmp_path_factory, clusters.NODES) as own:
        yield own


@pytest.fixture(scope="module")
def running(
    kafka: KafkaSettings, cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    patient = cluster.settings.cassandra.model_copy(
        update={"request_timeout_seconds": 60.0, "write_consistency": "ALL"}
    )
    settings = Settings(kafka=kafka, cassandra=patient)
    with deployment(settings, tmp_path_factory.mktemp("audit"), replicas=3) as d:
        d.publish(d.minute.source, story())
        d.run()
        yield d


def audit(d: Deployment, **options: Any) -> Audit:
    return Auditor(d.settings, d.catalog, [d.minute.name], silent).audit(RowsAsked(**options))


def at_one_node(d: Deployment, number: int, statement: str) -> str:
    """Run a statement at one replica, which tells no other; return its address."""
    with connected(d.settings.cassandra, "write", keyspace=d.settings.cassandra.keyspace) as session:
        view = views(session, d.settings.cassandra, consistency="", replicas=True)[number]
        session.execute(SimpleStatement(statement, consistency_level=NODE_LOCAL), host=view.host, timeout=30)
        return view.name


def test_the_replica_that_differs_is_named(running: Deployment) -> None:
    clean = audit(running, replicas=True)
    assert clean.ok
    assert [(t.view.alone, t.fates) for t in clean.tables] == [(True, {"equal": 16})] * 3

    def where(minute: int) -> str:
        start = BASE + minute * MINUTE
        return f"WHERE sensor_id = 's1' AND metric = 'm' AND day = '2023-11-14' AND window_start = {start}"

    name = running.minute.name
    changed = at_one_node(running, 1, f"UPDATE {name} USING TIMESTAMP 500 SET count = 7 {where(0)}")
    lost = at_one_node(running, 2, f"DELETE FROM {name} USING TIMESTAMP 500 {where(1)}")
    for _ in range(2):  # looking changes nothing
        found = audit(running, replicas=True)
        assert not found.ok
        told = {(t.view.name, d.kind, d.column) for t in found.tables for d in t.differences}
        assert told == {
            (changed, "cell", "count"),
            (changed, "write timestamp", "count"),
            (lost, "missing", None),
        }


def test_a_node_that_is_down_leaves_the_question_open(running: Deployment, cluster: LocalCluster) -> None:
    cluster.kill("cassandra-3")
    try:
        with pytest.raises(AuditError, match="does not answer"):
            audit(running, replicas=True)
        with pytest.raises(AuditError, match="cannot be read from ALL"):
            audit(running, consistency="ALL")
        assert audit(running, consistency="LOCAL_QUORUM").tables[0].fates["equal"] >= 14
    finally:
        cluster.start_server("cassandra-3")
