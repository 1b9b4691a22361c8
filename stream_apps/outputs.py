"""What a stage made, encoded and published: rows, late events, dead letters, rekeyed records with their announcements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluvial.records import Spans
from fluvial.schemas.avro import DatumWriter
from fluvial.schemas.encoder import Encoder
from fluvial.stream_apps.interning import joined
from fluvial.stream_apps.plan import TopicPlan
from fluvial.stream_apps.rekeying import Rekeyed
from fluvial.stream_apps.stage import StageOutput
from fluvial.transport.headers import TICK_HEADER, UPSTREAM_HEADER
from fluvial.transport.publisher import Delivery, OutRecord, Publisher


@dataclass(frozen=True, slots=True)
class Columns:
    """Records for one topic."""

    topic: str
    keys: Spans
    values: Spans


@dataclass(frozen=True, slots=True)
class Records:
    """A few records with headers or of their own shape."""

    topic: str
    records: list[OutRecord]


@dataclass(frozen=True, slots=True)
class Writers:
    """One encoder per topic that the worker writes columns to, and the dead letters' writer."""

    encoders: Mapping[str, Encoder]
    dead_letter: DatumWriter


def encode(
    out: StageOutput, plan: TopicPlan, writers: Writers, partitions: Mapping[str, int]
) -> list[Columns | Records]:
    """Return an output as records, in the order in which they must be published; meant to run in a thread.

    ``partitions`` says how many partitions each rekeyed topic has.
    """
    made: list[Columns | Records] = []
    for pipeline, columns in out.rows:
        keys = joined([_spans(columns[f]) for f in pipeline.key])
        made.append(Columns(pipeline.result_topic, keys, writers.encoders[pipeline.result_topic].encode(columns)))
    for keys, columns in out.late:
        made.append(Columns(plan.late_topic, keys, writers.encoders[plan.late_topic].encode(columns)))
    if out.dead:
        dead = [OutRecord(d.key, writers.dead_letter.write(d.fields)) for d in out.dead]
        made.append(Records(plan.dead_letter_topic, dead))
    for r in out.rekeyed:
        made.extend(_rekeyed(r, writers, partitions[r.rekey.topic]))
    return made


async def publish(made: list[Columns | Records], publisher: Publisher) -> list[Delivery]:
    """Hand everything to the publisher; the deliveries tell when Kafka has it."""
    deliveries = []
    for m in made:
        if isinstance(m, Columns):
            deliveries.append(await publisher.publish(m.topic, m.keys, m.values))
        else:
            deliveries.append(await publisher.publish_records(m.topic, m.records))
    return deliveries


def _rekeyed(r: Rekeyed, writers: Writers, partitions: int) -> list[Columns | Records]:
    topic, made = r.rekey.topic, list[Columns | Records]()
    if r.records:
        keys = joined([_spans(r.columns[f]) for f in r.rekey.key])
        values = writers.encoders[topic].encode(r.columns)
    at = 0
    for position, instant in zip([*r.position.tolist(), r.records], [*r.instant.tolist(), None], strict=True):
        if position > at:
            rows = np.arange(at, position)
            made.append(Columns(topic, keys.take(rows), values.take(rows)))
            at = position
        if instant is not None:
            headers = ((TICK_HEADER, str(instant).encode()), (UPSTREAM_HEADER, str(r.partition).encode()))
            made.append(Records(topic, [OutRecord(None, None, headers, partition=p) for p in range(partitions)]))
    return made


def _spans(column: Any) -> Spans:
    assert isinstance(column, Spans)
    return column
