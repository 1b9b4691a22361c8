"""Putting a sink together: settings, registry, codecs, a Cassandra session."""

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from fluvial.cassandra import close, connect
from fluvial.errors import FluvialError
from fluvial.records import RecordColumns, RowError
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import DEAD_LETTER, Catalog
from fluvial.schemas.dead_letters import DeadLetterLimit, dead_letters
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.registry import Registry
from fluvial.settings import Settings
from fluvial.sinks.app import Sink, SinkTopic
from fluvial.sinks.targets import readings_target, result_target
from fluvial.stream_apps.plan import chosen
from fluvial.transport.available import FromAvailable
from fluvial.transport.publisher import OutRecord

READINGS_TOPIC = "iot.readings"


# Of event topics the worker sets aside what cannot be read: the sink only adds what it cannot write.
NOT_READ = frozenset({"decode", "validate"})


class SetAside:
    """Makes dead letters of a topic's bad records, and stops when nearly all are bad. Safe to share by threads.

    Errors of the stages in ``elsewhere`` are another service's to set aside, and to count.
    """

    def __init__(self, writer: DatumWriter, *, ratio: float, run: int, elsewhere: frozenset[str] = frozenset()) -> None:
        self._writer = writer
        self._elsewhere = elsewhere
        self._ratio = ratio
        self._run = run
        self._limits: dict[tuple[str, int], DeadLetterLimit] = {}
        self._noting = Lock()

    def __call__(self, records: RecordColumns, errors: Sequence[RowError]) -> Sequence[OutRecord]:
        """Return a dead letter per error.

        Raises:
            DeadLetterLimitError: too many records of the partition are bad.
        """
        place = records.topic, records.partition
        errors = [e for e in errors if e.stage not in self._elsewhere]
        with self._noting:
            limit = self._limits.setdefault(place, DeadLetterLimit(ratio=self._ratio, run=self._run))
            limit.note(*place, len(records), np.array([e.row for e in errors], np.int64))
        return [OutRecord(d.key, self._writer.write(d.fields)) for d in dead_letters(records, errors)]


def build_sink(
    settings: Settings, catalog: Catalog, registry: Registry, from_available: FromAvailable | None = None
) -> Sink:
    """Return the sink of the pipelines that the settings choose; asks the registry and connects to Cassandra.

    ``from_available`` says after which gaps in the log it may go on.

    Raises:
        CassandraError: Cassandra cannot be reached.
        SinkError: a table is missing or another than declared.
        SchemaError: a schema is not registered.
        PipelineError: the settings name an unknown pipeline.
    """
    pipelines = chosen(catalog.pipelines, settings.worker.pipelines)
    writer = _dead_letter_writer(registry, pipelines[0].result_topic)
    ratio, run = settings.worker.dead_letter_ratio, settings.worker.dead_letter_run
    set_aside = SetAside(writer, ratio=ratio, run=run)
    topics = [
        SinkTopic(
            p.result_topic, result_target(p.table), Decoder(catalog.schema_of(p.result_topic), registry), set_aside
        )
        for p in pipelines
    ]
    if settings.sink.raw_readings:
        unwritten = SetAside(writer, ratio=ratio, run=run, elsewhere=NOT_READ)
        decoder = Decoder(catalog.schema_of(READINGS_TOPIC), registry)
        topics.append(SinkTopic(READINGS_TOPIC, readings_target(settings.sink.raw_retention_days), decoder, unwritten))
    session: Any = connect(settings.cassandra, "write")
    try:
        return Sink(settings.kafka, settings.sink, settings.cassandra, session, topics, from_available=from_available)
    except FluvialError:
        close(session)
        raise


def _dead_letter_writer(registry: Registry, topic: str) -> DatumWriter:
    schema = load_schema(DEAD_LETTER)
    return DatumWriter(schema, registry.schema_id(f"{topic}.dead-letter-value", schema))
