"""All declared pipelines together: every topic that follows from them, its role and its Avro schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fluvial.errors import PipelineError, SchemaError
from fluvial.schemas.avro import SCHEMA_DIR, has_schema, load_schema
from fluvial.schemas.declarations import Declaration, Pipeline, Rekey
from fluvial.schemas.results import rekeyed_schema, result_schema

Role = Literal["events", "rekeyed", "results", "late", "dead-letter"]
LATE_EVENT = "fluvial.LateEvent"
DEAD_LETTER = "fluvial.DeadLetter"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, its role, and the Avro schema of its values."""

    name: str
    role: Role
    schema: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The registry's subject of its values (Confluent's TopicNameStrategy)."""
        return f"{self.name}-value"


class Catalog:
    """The declarations of one deployment.

    Raises:
        PipelineError: two pipelines have one name.
    """

    def __init__(self, declarations: Sequence[Declaration]) -> None:
        self.declarations = tuple(declarations)
        self.pipelines: tuple[Pipeline, ...] = tuple(p for d in declarations for p in d.pipelines)
        names = [p.name for p in self.pipelines]
        for name in names:
            if names.count(name) > 1:
                raise PipelineError(
                    f"two pipelines are named {name}", hint="a pipeline's name is its table's: rename one"
                )
        self._by_result = {p.result_topic: p for p in self.pipelines}
        self._directories = {p.name: d.schema_dir for d in declarations for p in d.pipelines}

    @property
    def rekeys(self) -> tuple[Rekey, ...]:
        """Every rekeying that a pipeline asks for, once."""
        return tuple(dict.fromkeys(r for p in self.pipelines for r in p.upstream))

    @cached_property
    def event_schemas(self) -> Mapping[str, dict[str, Any]]:
        """The Avro schema of every topic that a pipeline or a rekeying reads, by topic."""
        topics = dict.fromkeys([p.source for p in self.pipelines] + [r.source for r in self.rekeys])
        return {t: self.schema_of(t) for t in topics if t not in self._by_result}

    @cached_property
    def result_schemas(self) -> Mapping[str, dict[str, Any]]:
        """The Avro schema of every result topic, by topic."""
        return {p.result_topic: self.schema_of(p.result_topic) for p in self.pipelines}

    @cached_property
    def topics(self) -> tuple[Topic, ...]:
        """Every topic: those of events, rekeyed and results, then the late ones, then a dead-letter topic for each.

        Raises:
            SchemaError: see `schema_of`.
        """
        rekeyed = {r.topic for r in self.rekeys}
        read = [Topic(t, "rekeyed" if t in rekeyed else "events", s) for t, s in self.event_schemas.items()]
        main = read + [Topic(t, "results", s) for t, s in self.result_schemas.items()]
        sources = dict.fromkeys(p.source for p in self.pipelines)
        late = [Topic(f"{name}.late", "late", load_schema(LATE_EVENT)) for name in sources]
        dead = [Topic(f"{t.name}.dead-letter", "dead-letter", load_schema(DEAD_LETTER)) for t in main]
        return (*main, *late, *dead)

    def schema_of(self, topic: str) -> dict[str, Any]:
        """Return the Avro schema of an event, rekeyed or result topic.

        Raises:
            SchemaError: nothing declares what the topic holds, an Avro file is missing or lacks a declared field, two
                pipelines name different events for the topic, or it is made of itself.
        """
        return self._schema_of(topic, ())

    def _schema_of(self, topic: str, above: tuple[str, ...]) -> dict[str, Any]:
        path = (*above, topic)
        if topic in above:
            raise SchemaError(f"topic {topic} is made of itself: {' ← '.join(path)}", hint="mend the declarations")
        if topic in self._by_result:
            pipeline = self._by_result[topic]
            return result_schema(pipeline, self._schema_of(pipeline.source, path))
        for r in self.rekeys:
            if r.topic == topic:
                return rekeyed_schema(r, self._schema_of(r.source, path))
        events = {p.event: p for p in self.pipelines if p.source == topic}
        if len(events) > 1:
            raise SchemaError(f"topic {topic} is declared to hold {' and '.join(events)}", hint="agree on one event")
        for event, pipeline in events.items():
            return load_schema(event, self._directory(event, self._directories[pipeline.name]))
        raise SchemaError(f"no pipeline says what {topic} holds", hint="declare one that reads it")

    def _directory(self, event: str, directory: Path) -> Path:
        """Return a declaration's own directory when it has the event's file, else that of the shipped ones."""
        return directory if has_schema(event, directory) else SCHEMA_DIR
