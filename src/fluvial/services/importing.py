"""Putting an import together: the event of a topic, its key, its pipelines, the registry, the publisher."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial.producers.building import Built
from fluvial.producers.chunks import ImportFileError, Source
from fluvial.producers.completion import completion
from fluvial.producers.fields import fields_of
from fluvial.producers.import_plan import ImportPlan, ImportRequest, plan_import
from fluvial.producers.importing import FileProgress, FileSummary, Importer, preview
from fluvial.producers.rejections import RejectedFile
from fluvial.schemas.avro import SCHEMA_DIR, has_schema, load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Pipeline
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services.partitions import partition_counts
from fluvial.settings import Settings
from fluvial.transport.publisher import Publisher


@dataclass(frozen=True, slots=True)
class EventTopic:
    """A topic of events: what they are, which field is the record's key, and who reads them."""

    topic: str
    schema: dict[str, Any]
    key: str
    event_time: str
    not_empty: frozenset[str]
    declared: bool

    def schema_id(self, registry: Registry) -> int:
        """Return the schema's id; a topic that no pipeline reads gets its subject now.

        Raises:
            SchemaError: a declared topic has not been provisioned, or the schema is incompatible.
        """
        subject = f"{self.topic}-value"
        if self.declared:
            return registry.schema_id(subject, self.schema)
        return registry.register(subject, self.schema)


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What became of an import: every event and tick in it is acknowledged."""

    files: Sequence[FileSummary]
    ticks: int
    seconds: float

    @property
    def events(self) -> int:
        """How many events were published."""
        return sum(f.events for f in self.files)


def event_topic(catalog: Catalog, topic: str, event: str | None = None, key: str | None = None) -> EventTopic:
    """Return what a topic takes: as declared, or, for a topic that no pipeline reads, as the given event.

    The record key is the first field that the keys of all pipelines of the event share, unless one is given.

    Raises:
        ImportFileError: nobody says what the topic holds or what its key is.
        SchemaError: there is no such event.
    """
    events = _event_topics(catalog)
    declared = topic in events
    if not declared and event is None:
        raise ImportFileError(
            f"no pipeline reads topic {topic}",
            hint=f"event topics are {', '.join(events)}; for another one say --event, e.g. fluvial.iot.SensorReading",
        )
    schema = catalog.schema_of(topic) if declared else load_schema(event or "", _directory(catalog, event or ""))
    name = f"{schema['namespace']}.{schema['name']}" if "namespace" in schema else schema["name"]
    if declared and event not in (None, name):
        raise ImportFileError(f"topic {topic} holds {name}, not {event}", hint="leave --event out")
    readers = [p for p in catalog.pipelines if p.event == name]
    shared = [f for f in readers[0].key if all(f in p.key for p in readers)] if readers else []
    fields = [f["name"] for f in schema["fields"]]
    if key is not None and key not in fields:
        raise ImportFileError(f"--key {key}: the event has no such field", hint=f"fields are {', '.join(fields)}")
    if key is None and not shared:
        hint = f"say --key, one of {', '.join(fields)}"
        raise ImportFileError(f"what is the record key in topic {topic}?", hint=hint)
    key = key or shared[0]
    event_time = readers[0].event_time if readers else "event_time"
    not_empty = frozenset({key, *(f for p in readers for f in p.key)})
    return EventTopic(topic, schema, key, event_time, not_empty, declared)


def plan_for(into: EventTopic, request: ImportRequest, sources: Sequence[Source]) -> ImportPlan:
    """Check a request against the topic's event and the files; see `plan_import`."""
    return plan_import(request, fields_of(into.schema), into.key, into.not_empty, sources)


def rejected_path(source: Path, directory: Path | None) -> Path:
    """Return where rejected lines of a file go: beside it, or here if nothing can be written there."""
    if directory is None:
        directory = source.parent if os.access(source.parent, os.W_OK) else Path()
    return directory / f"{source.name}.rejected.ndjson"


def dry_run(sources: Sequence[Source], plan: ImportPlan) -> list[Built]:
    """Return what the first chunks of the files would become; see `preview`."""
    return preview(sources, plan)


async def import_files(
    settings: Settings,
    catalog: Catalog,
    into: EventTopic,
    plan: ImportPlan,
    sources: Sequence[Source],
    *,
    completing: Sequence[Pipeline] = (),
    rejected_directory: Path | None = None,
    report: Callable[[FileProgress], None] = lambda _: None,
) -> ImportSummary:
    """Publish the files one after the other, then the ticks that complete the import for some pipelines.

    Raises:
        ImportFileError: what the first chunks show is wrong with the whole.
        ProvisioningError, SchemaError: topic or subject are missing.
        PublishError: an event was not acknowledged.
    """
    kept = [rejected_path(s.path, rejected_directory) for s in sources]
    for path in kept:
        if kept.count(path) > 1:
            raise ImportFileError(f"two files would keep their rejected lines in {path}", hint="import them one by one")
    preview(sources, plan)
    partitions = partition_counts(settings.kafka, {into.topic})[into.topic]
    with Registry(settings.registry) as registry:
        encoder = Encoder(into.schema, into.schema_id(registry))
    begun = time.monotonic()
    async with Publisher(settings.kafka) as publisher:
        importer = Importer(publisher, into.topic, plan, encoder, into.event_time if completing else None)
        files = [
            await importer.import_file(s, RejectedFile(path), report) for s, path in zip(sources, kept, strict=True)
        ]
        ticks = 0
        if completing:
            keys, latest = importer.latest.result()
            ticks = await importer.complete(completion(keys, latest, into.topic, completing, partitions))
    return ImportSummary(files, ticks, time.monotonic() - begun)


def completing_pipelines(catalog: Catalog, into: EventTopic) -> tuple[Pipeline, ...]:
    """Return the pipelines whose windows an import can complete: all declared ones.

    Raises:
        ImportFileError: none of them reads the topic.
    """
    if not into.declared:
        raise ImportFileError(
            f"--complete: no pipeline reads topic {into.topic}, so it has no windows", hint="leave --complete out"
        )
    return catalog.pipelines


def _event_topics(catalog: Catalog) -> list[str]:
    return [t.name for t in catalog.topics if t.role == "events"]


def _directory(catalog: Catalog, event: str) -> Path:
    directories = [d.schema_dir for d in catalog.declarations]
    return next((d for d in directories if has_schema(event, d)), SCHEMA_DIR)
