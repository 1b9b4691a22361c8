"""The page of topics, schemas and tables, from the shipped declarations."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Hopping, Pipeline, Session
from fluvial.schemas.tables import table_spec
from fluvial.stream_apps.shipped import DECLARATION

from . import NOTE, cell

HEAD = f"""{NOTE}

# Topics, schemas and tables

`fluvial init` creates all of this, and verifies it when it exists. Values are Avro in Confluent's wire format (a zero
byte, four bytes of schema id, the datum); the registry's subject of a topic's values is `<topic>-value`, its
compatibility is `BACKWARD_TRANSITIVE`. A record's partition is found by murmur2 of its key, as Java's clients do.

## Pipelines
"""
TOPICS = """
A repeat is known by the first identity field that is not null; *+ time* says that the event time belongs to it.

## Topics

| topic | holds | Avro record |
|---|---|---|"""
KEYS = """| `<worker.group>.checkpoints` | state of the processors; compacted | none: chunks and manifests |
| `fluvial.dead-letters.handled` | which dead letters were redriven or discarded; compacted, one partition | none: JSON |

Record keys: an event topic's is one text field (`sensor_id`, `author_id`); late events and dead letters keep the key of
the source record; those of rekeyed and result topics are made of the key fields.

**Ticks** are records with a null value and the header `fluvial-tick`, an instant in epoch milliseconds as decimal
text; in rekeyed topics also `fluvial-upstream`, the partition that speaks. What they mean: [semantics](semantics.md).

## Avro records

A result record, `fluvial.results.<table>`, has the columns of its table (below) but for the bucket: the key fields,
`window_start`, `window_end`, the aggregates, `duplicates`, `final`, `generation`, `source_partition`, `source_offset`.
"""
TABLES = """## Tables

In the keyspace `cassandra.keyspace`. A result row is a whole row, written with the timestamp
`(generation << 44) | source_offset`. The arithmetic behind each table's size stands in its `.cql` file (`schemas/`).
"""
READINGS = """### sensor_readings

Optional (`sink.raw_readings`): every reading, by (sensor_id, metric, day) and event time, kept for 30 days.
"""
UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))
ROLES = {
    "events": "events",
    "rekeyed": "copies under another key",
    "results": "rows",
    "late": "late events",
    "dead-letter": "bad records, untouched",
}


def page() -> str:
    """Return the page."""
    catalog = Catalog([DECLARATION])
    topics = [f"| `{t.name}` | {ROLES[t.role]} | `{_full_name(t.schema)}` |" for t in catalog.topics]
    schemas = {_full_name(t.schema): t.schema for t in catalog.topics if t.role != "results"}
    records = [line for s in schemas.values() for line in _record(s)]
    tables = [line for p in catalog.pipelines for line in _table(p, catalog)]
    return "\n".join([HEAD, *_pipelines(catalog), TOPICS, *topics, KEYS, *records, TABLES, *tables, READINGS])


def _pipelines(catalog: Catalog) -> Iterator[str]:
    yield "| pipeline and table | reads | key | window | time | lateness | identity | aggregates | bucket |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for p in catalog.pipelines:
        key = ", ".join(f"`{n}`" for n in p.key)
        cells = (f"`{p.name}`", f"`{p.source}`", key, _window(p), p.time, _span(p.lateness_ms), _identity(p))
        yield f"| {' | '.join((*cells, ', '.join(p.aggregates), p.table.bucket))} |"


def _record(schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {_full_name(schema)}\n"
    if "doc" in schema:
        yield f"{schema['doc']}\n"
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    for f in schema["fields"]:
        default = f"`{json.dumps(f['default'])}`" if "default" in f else ""
        yield f"| `{f['name']}` | {_avro(f['type'])} | {default} | {cell(f.get('doc', ''))} |"
    yield ""


def _table(p: Pipeline, catalog: Catalog) -> Iterator[str]:
    spec = table_spec(p, catalog.schema_of(p.result_topic))
    order = ", ".join(f"`{name}` {way}ending" for name, way in spec.clustering)
    bucket = "the first day of the month" if p.table.bucket == "month" else "the day"
    yield f"### {spec.name}\n"
    yield f"Partition key ({', '.join(f'`{c}`' for c in spec.partition_key)}), clustered by {order}."
    yield f"`{p.table.bucket}` is {bucket} (UTC) that holds `window_start`.\n"
    yield f"{', '.join(f'`{name}` {kind}' for name, kind in spec.columns.items())}\n"


def _avro(kind: Any) -> str:
    if isinstance(kind, list):
        return " or ".join(_avro(k) for k in kind)
    if isinstance(kind, Mapping):
        if kind["type"] == "array":
            return f"array of {_avro(kind['items'])}"
        if kind["type"] == "record":
            return f"{kind['name']} ({', '.join(f['name'] for f in kind['fields'])})"
        return str(kind.get("logicalType", kind["type"]))
    return str(kind)


def _full_name(schema: Mapping[str, Any]) -> str:
    return f"{schema['namespace']}.{schema['name']}"


def _window(p: Pipeline) -> str:
    w = p.window
    if isinstance(w, Session):
        return f"session, gap {_span(w.gap_ms)}"
    return f"{_span(w.size_ms)} every {_span(w.hop_ms)}" if isinstance(w, Hopping) else _span(w.size_ms)


def _identity(p: Pipeline) -> str:
    named = " or ".join(f"`{f}`" for f in p.identity)
    return f"{named} + time" if p.identity and p.identity_has_time else named


def _span(ms: int) -> str:
    return next((f"{ms // size} {unit}" for size, unit in UNITS if ms and ms % size == 0), "0")
