"""All declared pipelines together, and the Avro schema of every topic that follows from them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from fluvial.errors import PipelineError, SchemaError
from fluvial.schemas.avro import load_schema
from fluvial.schemas.declarations import Declaration, Pipeline, Rekey
from fluvial.schemas.results import rekeyed_schema, result_schema


class Catalog:
    """The declarations of one deployment.

    Raises:
        PipelineError: two pipelines have one name.
        SchemaError: an event's Avro file is missing, or lacks a declared field.
    """

    def __init__(self, declarations: Sequence[Declaration]) -> None:
        self.declarations = tuple(declarations)
        self.pipelines: tuple[Pipeline, ...] = tuple(p for d in declarations for p in d.pipelines)
        names = [p.name for p in self.pipelines]
        for name in names:
            if names.count(name) > 1:
                raise PipelineError(f"two pipelines are named {name}", hint="a pipeline's name is its table's: rename one")
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

    def schema_of(self, topic: str) -> dict[str, Any]:
        """Return the Avro schema of an event, rekeyed or result topic.

        Raises:
            SchemaError: nothing declares what the topic holds.
        """
        if topic in self._by_result:
            pipeline = self._by_result[topic]
            return result_schema(pipeline, self.schema_of(pipeline.source))
        for r in self.rekeys:
            if r.topic == topic:
                return rekeyed_schema(r, self.schema_of(r.source))
        for p in self.pipelines:
            if p.source == topic:
                return load_schema(p.event, self._directories[p.name])
        raise SchemaError(f"no pipeline says what {topic} holds", hint="declare one that reads it")
