"""Provisioning: topics, subjects, keyspace and tables, created where they are missing and verified where they exist."""

from pathlib import Path

from confluent_kafka.admin import AdminClient

from fluvial.cassandra import connected
from fluvial.schemas.avro import SCHEMA_DIR
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.findings import Difference, Finding, Report, verdict
from fluvial.schemas.migrations import CqlSession, apply_migrations, migrations_in
from fluvial.schemas.registry import COMPATIBILITY, Registry
from fluvial.schemas.tables import ensure_keyspace, table_spec, verify_table
from fluvial.schemas.topics import ensure_topics, topic_specs
from fluvial.settings import CassandraSettings, KafkaSettings, RegistrySettings
from fluvial.transport.connection import librdkafka_config

SHIPPED_SCOPE = "fluvial"


def init(
    kafka: KafkaSettings,
    registry: RegistrySettings,
    cassandra: CassandraSettings,
    worker_group: str,
    catalog: Catalog,
) -> Report:
    """Make everything that the declared pipelines need, and tell what was made, what was right and what differs.

    Repeatable; nothing that exists is altered. Run it from one place at a time: Cassandra does not order concurrent
    changes of a schema.

    Raises:
        ProvisioningError: Kafka does not answer, or a server refuses.
        CassandraError: Cassandra does not answer or does not let us in.
        SchemaError: the declarations do not fit the Avro files, or a schema is incompatible with a registered one.
        RegistryUnavailableError: the registry does not answer.
    """
    findings = ensure_topics(AdminClient(librdkafka_config(kafka)), topic_specs(catalog, kafka, worker_group))
    with Registry(registry) as client:
        findings += [_subject(client, t.subject, dict(t.schema)) for t in catalog.topics]
    with connected(cassandra, "write") as session:
        findings += _tables(session, cassandra, catalog)
    return Report(tuple(findings))


def _subject(registry: Registry, subject: str, schema: dict[str, object]) -> Finding:
    before = registry.compatibility(subject)
    known = registry.registered_id(subject, schema)
    if known is None:
        registry.register(subject, schema)
        before = registry.compatibility(subject)
    if before is None:
        registry.set_compatibility(subject)
    elif before != COMPATIBILITY:
        hint = f"set it with PUT /config/{subject}, or keep it knowing that old records may become unreadable"
        return verdict("subject", subject, [Difference("compatibility", before, COMPATIBILITY, hint)])
    return Finding("subject", subject, "created" if known is None else "verified")


def _tables(session: CqlSession, cassandra: CassandraSettings, catalog: Catalog) -> list[Finding]:
    findings = [ensure_keyspace(session, cassandra)]
    # The name has been checked by the settings' pattern.
    session.execute(f"USE {cassandra.keyspace}", timeout=60.0)
    directories = dict.fromkeys([SCHEMA_DIR, *(d.schema_dir for d in catalog.declarations)])
    migrations = tuple(m for d in directories for m in migrations_in(d, _scope(d)))
    findings += apply_migrations(session, migrations)
    specs = [table_spec(p, catalog.schema_of(p.result_topic)) for p in catalog.pipelines]
    return findings + [verify_table(session, cassandra.keyspace, spec) for spec in specs]


def _scope(directory: Path) -> str:
    return SHIPPED_SCOPE if directory == SCHEMA_DIR else directory.resolve().name
