"""Files as events, without Kafka: what the tests of the import have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluvial.producers.building import Built, build
from fluvial.producers.chunks import Source
from fluvial.producers.fields import fields_of
from fluvial.producers.files import open_source
from fluvial.producers.import_plan import ImportPlan, ImportRequest, plan_import
from fluvial.producers.rejections import Rejected
from fluvial.records import Column, Longs, Spans, StringLists
from fluvial.schemas.avro import load_schema

READING, POST = "fluvial.iot.SensorReading", "fluvial.social.SocialPost"
DATA = Path(__file__).parents[1] / "data"
KEYS = {READING: "sensor_id", POST: "author_id"}

# How the samples in tests/data are imported.
MICROCLIMATE = ImportRequest(
    columns={"sensor_id": "site", "event_time": "date_time"}, melt=("ambient_temperature", "wind_speed", "pm2.5")
)
UPLINKS = ImportRequest(
    columns={"sensor_id": "dev_eui", "event_time": "reported_at", "sequence": "fcnt"}, melt=("decoded.payload.*",)
)
EDITS = ImportRequest(
    columns={"author_id": "user", "network": "channel", "hashtags": "page", "text": "comment", "event_time": "time"},
    hashes={"post_id": ("time", "user", "page")},
)


def plan(request: ImportRequest, event: str, sources: Sequence[Source]) -> ImportPlan:
    """Plan an import as the command line does."""
    key = KEYS[event]
    not_empty = frozenset({"sensor_id", "metric"}) if event == READING else frozenset({key})
    return plan_import(request, fields_of(load_schema(event)), key, not_empty, sources)


def built(path: Path, request: ImportRequest, event: str = READING) -> list[Built]:
    """Return the events of a file, chunk by chunk."""
    source = open_source(path)
    checked = plan(request, event, [source])
    return [build(c, checked) for c in source.chunks(checked.source_columns, checked.melt)]


def events(chunks: Sequence[Built]) -> list[dict[str, Any]]:
    """Return events as Python values."""
    return [row for c in chunks for row in rows(c.columns)]


def rows(columns: dict[str, Column] | Any) -> list[dict[str, Any]]:
    """Return columns as one dict per row."""
    lists = {name: values(c) for name, c in columns.items()}
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


def values(column: Column) -> list[Any]:
    """Return a column as Python values."""
    if isinstance(column, Spans):
        raw = [column.bytes_at(i) for i in range(len(column))]
        return [None if r is None else r.decode() for r in raw]
    if isinstance(column, StringLists):
        items = values(column.items)
        pairs = zip(column.offsets[:-1].tolist(), column.offsets[1:].tolist(), strict=True)
        return [items[a:b] for a, b in pairs]
    if isinstance(column, Longs):
        return [v if ok else None for v, ok in zip(column.values.tolist(), column.valid.tolist(), strict=True)]
    return [v if ok else None for v, ok in zip(column.values.tolist(), column.valid.tolist(), strict=True)]  # type: ignore[union-attr]


def rejected(chunks: Sequence[Built]) -> list[Rejected]:
    """Return all rejected lines."""
    return [r for c in chunks for r in c.rejected]
