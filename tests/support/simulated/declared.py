"""What the simulated deployment declares: one event, a handful of pipelines of every kind, and their codecs (made once)."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from fluvial.oracle import from_kafka
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import DEAD_LETTER, LATE_EVENT, Catalog
from fluvial.schemas.declarations import SECOND_MS, Declaration, Hopping, Pipeline, Rekey, Session, Table, Tumbling
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.sources import SchemaMap
from fluvial.schemas.tables import table_spec
from fluvial.stream_apps.outputs import Writers
from fluvial.stream_apps.plan import TopicPlan, plan_topics
from support.simulated.cassandra import TableOf

SCHEMAS = Path(__file__).parents[2] / "data" / "simulated"
EVENT = "simulated.Event"
SOURCE = "events"
RETENTION_DAYS = 1

BY_DEVICE = Pipeline(
    source=SOURCE,
    event=EVENT,
    key=("device",),
    window=Tumbling(10 * SECOND_MS),
    lateness_ms=5 * SECOND_MS,
    early_ms=4 * SECOND_MS,
    idle_timeout_ms=30 * SECOND_MS,
    identity=("sequence", "value"),
    value="value",
    aggregates=("count", "sum", "mean", "min", "max", "first", "last", "stddev", "p95"),
    table=Table("by_device", ("device",), "day", retention_days=RETENTION_DAYS),
)
SESSIONS = Pipeline(
    source=SOURCE,
    event=EVENT,
    key=("device",),
    window=Session(6 * SECOND_MS),
    time="partition",
    lateness_ms=4 * SECOND_MS,
    idle_timeout_ms=30 * SECOND_MS,
    early_ms=0,
    identity=("sequence", "value"),
    value="value",
    aggregates=("count", "sum", "last"),
    table=Table("sessions", ("device",), "month"),
)
ITEMS = Rekey(
    source=SOURCE,
    topic="items",
    event="simulated.Item",
    fields=("device", "value", "event_time"),
    key=("item",),
    explode="items",
    explode_as="item",
    announce_ms=3 * SECOND_MS,
)
BY_ITEM = Pipeline(
    source=ITEMS.topic,
    event=ITEMS.event,
    upstream=(ITEMS,),
    key=("item",),
    window=Hopping(10 * SECOND_MS, 5 * SECOND_MS),
    time="partition",
    lateness_ms=3 * SECOND_MS,
    early_ms=4 * SECOND_MS,
    idle_timeout_ms=30 * SECOND_MS,
    identity=("upstream_offset",),
    value="value",
    distinct="device",
    aggregates=("count", "sum", "distinct"),
    table=Table("by_item", ("item",), "month"),
)
TOPOLOGIES: Mapping[str, tuple[Pipeline, ...]] = {
    "devices": (BY_DEVICE,),
    "devices and sessions": (BY_DEVICE, SESSIONS),
    "items": (BY_ITEM,),
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that is declared once for all runs of a topology."""

    pipelines: tuple[Pipeline, ...]
    plans: Mapping[str, TopicPlan]
    decoders: Mapping[str, Decoder]
    result_decoders: Mapping[str, Decoder]
    writers: Writers
    tables: tuple[TableOf, ...]
    rekeyed: tuple[str, ...]
    schemas: Mapping[int, Any]
    event: DatumWriter


@cache
def deployment(topology: str, lateness_added_ms: int = 0) -> Deployment:
    """Return a topology's deployment; a corrected one waits longer for what is late."""
    pipelines = tuple(
        replace(
            p,
            lateness_ms=p.lateness_ms + lateness_added_ms,
            idle_timeout_ms=p.idle_timeout_ms + lateness_added_ms,
        )
        for p in TOPOLOGIES[topology]
    )
    # An event topic that is only rekeyed needs somebody to say what it holds.
    says = [] if BY_DEVICE.name in {p.name for p in pipelines} else [BY_DEVICE]
    catalog = Catalog([Declaration((*pipelines, *says), SCHEMAS)])
    plans = plan_topics(pipelines)
    if BY_DEVICE.source in plans and not plans[SOURCE].event:
        plans[SOURCE] = replace(plans[SOURCE], event=EVENT)
    rekeyed = tuple(r.topic for plan in plans.values() for r in plan.rekeys)
    schemas: dict[str, Any] = {t: catalog.schema_of(t) for t in (*plans, *(p.result_topic for p in pipelines))}
    schemas |= {plan.late_topic: load_schema(LATE_EVENT) for plan in plans.values()}
    schemas[DEAD_LETTER] = load_schema(DEAD_LETTER)
    ids = {topic: i for i, topic in enumerate(schemas, 1)}
    by_id = {ids[topic]: s for topic, s in schemas.items()}
    source = SchemaMap(by_id)
    encoders = {t: Encoder(s, ids[t]) for t, s in schemas.items() if t not in (SOURCE, DEAD_LETTER)}
    return Deployment(
        pipelines,
        plans,
        {t: Decoder(schemas[t], source) for t in plans},
        {p.result_topic: Decoder(schemas[p.result_topic], source) for p in pipelines},
        Writers(encoders, DatumWriter(schemas[DEAD_LETTER], ids[DEAD_LETTER])),
        tuple(_table(p, schemas[p.result_topic]) for p in pipelines),
        rekeyed,
        {i: from_kafka.parse(s) for i, s in by_id.items()},
        DatumWriter(schemas[SOURCE], ids[SOURCE]),
    )


def python_value(data: bytes, kind: str) -> Any:
    """Return what a CQL cell says, times as epoch ms, dates as days since the epoch."""
    match kind:
        case "text":
            return data.decode()
        case "double":
            return struct.unpack(">d", data)[0]
        case "bigint" | "int" | "timestamp":
            return int.from_bytes(data, "big", signed=True)
        case "boolean":
            return data != b"\0"
        case "date":
            return int.from_bytes(data, "big") - (1 << 31)
    raise AssertionError(f"no simulated column is {kind}")


def _table(p: Pipeline, schema: Mapping[str, Any]) -> TableOf:
    spec = table_spec(p, schema)
    return TableOf(spec.name, spec.columns, spec.partition_key, tuple(name for name, _ in spec.clustering))
