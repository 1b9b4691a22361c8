"""A rehearsal: what a worker will do with every topic, done once before it joins its group.

The loops are compiled at their first call, which takes a minute where nothing is cached. Within a rebalance that minute
would pass for a worker that cannot hand over its partitions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fluvial.errors import SchemaError
from fluvial.records import RecordColumns
from fluvial.schemas.avro import DatumWriter
from fluvial.schemas.columns import repeated, spans_from_strings
from fluvial.schemas.dead_letters import DeadLetterLimit
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.sources import SchemaMap
from fluvial.stream_apps import outputs
from fluvial.stream_apps.outputs import Writers
from fluvial.stream_apps.plan import TopicPlan
from fluvial.stream_apps.stage import PartitionStage

# An event, one that closes its windows, and one that comes too late.
TIMES = (0, 10**12, 0)


def rehearse(
    plans: Mapping[str, TopicPlan], schemas: Mapping[str, Any], writers: Writers, partitions: Mapping[str, int]
) -> None:
    """Handle a few made-up records of each topic; nothing is read or published. ``schemas`` are by topic. Blocks."""
    for topic, plan in plans.items():
        schema = schemas[topic]
        try:
            records = _records(plan, schema)
        except SchemaError:  # no made-up record of such a schema: what it needs is compiled when its first one comes
            continue
        stage = PartitionStage(
            plan,
            0,
            Decoder(schema, SchemaMap({1: schema})),
            limit=DeadLetterLimit(ratio=1.0, run=len(TIMES) + 1),
            max_ahead_ms=0,
            upstream_partitions=partitions[plan.upstream] if plan.upstream else 0,
        )
        outputs.encode(stage.process(records), plan, writers, partitions)
        outputs.encode(stage.open_rows(), plan, writers, partitions)
        stage.state(stage.room())


def _records(plan: TopicPlan, schema: Any) -> RecordColumns:
    writer = DatumWriter(schema, 1)
    blank = {f["name"]: _blank(f["type"]) for f in schema["fields"]}
    values = [writer.write(blank | {plan.event_time: t}) for t in TIMES]
    n = len(values)
    value = spans_from_strings(values)
    at, offsets = np.zeros(n, np.int64), np.arange(n, dtype=np.int64)
    return RecordColumns(plan.topic, 0, offsets, np.array(TIMES, np.int64), repeated("k", n), value, at, n)


def _blank(kind: Any) -> Any:
    """Return a value of an Avro type that is not null where it need not be."""
    if isinstance(kind, list):
        return _blank(next((k for k in kind if k != "null"), "null"))
    if isinstance(kind, Mapping):
        match kind["type"]:
            case "array":
                return [_blank(kind["items"])]
            case "map":
                return {}
            case "record":
                return {f["name"]: _blank(f["type"]) for f in kind["fields"]}
            case "enum":
                return kind["symbols"][0]
            case "fixed":
                return bytes(kind["size"])
            case inner:
                return _blank(inner)
    blanks: dict[str, Any] = {
        "string": "x", "bytes": b"x", "boolean": False, "int": 0, "long": 0, "float": 0.0, "double": 0.0,
    }  # fmt: skip
    return blanks.get(kind)
