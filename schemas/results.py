"""The Avro schemas that follow from declarations: a pipeline's result rows and a rekeying's records."""

from collections.abc import Mapping
from typing import Any

from fluvial.errors import SchemaError
from fluvial.schemas.declarations import Pipeline, Rekey

TIMESTAMP = {"type": "long", "logicalType": "timestamp-millis"}
_COUNTS = frozenset({"count", "distinct"})


def result_schema(pipeline: Pipeline, event_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a pipeline's rows: key fields, window, aggregates as declared, and where they come from.

    Counts are longs, other aggregates doubles; ``top`` makes two fields: ``top`` (strings), ``top_counts`` (doubles).

    Raises:
        SchemaError: a key field is not in the event's schema.
    """
    fields = [_copied(event_schema, name, pipeline.name) for name in pipeline.key]
    fields += [_field("window_start", TIMESTAMP), _field("window_end", TIMESTAMP)]
    for aggregate in pipeline.aggregates:
        if aggregate == "top":
            fields.append(_field("top", {"type": "array", "items": "string"}))
            fields.append(_field("top_counts", {"type": "array", "items": "double"}))
        else:
            fields.append(_field(aggregate, "long" if aggregate in _COUNTS else "double"))
    fields += [
        _field("duplicates", "long"),
        _field("final", "boolean"),
        _field("generation", "int"),
        _field("source_partition", "int"),
        _field("source_offset", "long"),
    ]
    return {"type": "record", "name": pipeline.name, "namespace": "fluvial.results", "fields": fields}


def rekeyed_schema(rekey: Rekey, source_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a rekeying's records: the copied fields, the exploded item, and the upstream identity.

    Raises:
        SchemaError: a copied field is not in the source's schema, or the exploded one is no array.
    """
    fields = [_copied(source_schema, name, rekey.topic) for name in rekey.fields]
    if rekey.explode is not None:
        listed = _copied(source_schema, rekey.explode, rekey.topic)["type"]
        if not isinstance(listed, Mapping) or listed.get("type") != "array":
            raise SchemaError(f"{rekey.topic}: field {rekey.explode} is no array", hint="explode a list field")
        fields.append(_field(rekey.explode_as or rekey.explode, listed["items"]))
    fields += [_field("upstream_partition", "int"), _field("upstream_offset", "long"), _field("upstream_index", "int")]
    namespace, _, name = rekey.event.rpartition(".")
    return {"type": "record", "name": name, "namespace": namespace, "fields": fields}


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


def _copied(schema: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    for f in schema["fields"]:
        if f["name"] == name:
            return {k: v for k, v in f.items() if k in {"name", "type", "default"}}
    raise SchemaError(f"{where}: no field {name} in {schema['name']}", hint="correct the declaration or the schema")
