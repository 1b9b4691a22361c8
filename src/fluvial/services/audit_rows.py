"""A table held against what was recomputed for it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fluvial.oracle.comparing import Circumstances, Comparison, Difference, Fate, Identity
from fluvial.oracle.from_kafka import parse
from fluvial.schemas.declarations import Pipeline
from fluvial.services.audit_log import LogReader
from fluvial.services.audit_recompute import Asked, Recomputed
from fluvial.services.audit_tables import Table, View
from fluvial.services.meter import Meter
from fluvial.services.progress import Position

LEDGER = ("records", "ticks", "aggregated", "duplicates", "late", "dead_lettered")


@dataclass(frozen=True, slots=True)
class AuditedRows:
    """A table as ``view`` shows it, after the comparison: how many rows came to what, and the first differences.

    ``keys`` is how many keys were sampled (None: all), ``generations`` counts the rows of other generations than the
    worker's.
    """

    pipeline: str
    view: View
    keys: int | None
    fates: Mapping[Fate, int]
    generations: Mapping[int, int]
    cells: int
    problems: int
    differences: tuple[Difference, ...]


def compare(
    table: Table,
    view: View,
    asked: Asked,
    recomputed: Recomputed,
    circumstances: Circumstances,
    limit: int,
    meter: Meter,
) -> AuditedRows:
    """Read a table and compare it.

    Raises:
        AuditError: Cassandra does not answer.
    """
    comparison = Comparison(recomputed.pipeline, recomputed.parts, circumstances, limit=limit)
    for found in table.rows(asked, recomputed):
        meter.add()
        if table.owns(comparison.identity(found)):
            comparison.row(found)
    comparison.finish(table.owns)
    return AuditedRows(
        recomputed.pipeline.name,
        view,
        None if recomputed.sample is None else len(recomputed.sample),
        dict(comparison.fates),
        dict(comparison.generations),
        comparison.cells,
        comparison.problems,
        tuple(comparison.differences),
    )


def identity_schema(pipeline: Pipeline, result_schema: Mapping[str, Any]) -> Any:
    """Return the part of a result row's schema that names the row, ready to decode with."""
    names = (*pipeline.key, "window_start")
    fields = [f for f in result_schema["fields"] if f["name"] in names]
    return parse({**result_schema, "fields": fields})


def on_their_way(log: LogReader, pipeline: Pipeline, schema: Any, behind: list[Position]) -> Collection[Identity]:
    """Return the rows that lie in the result topic and that the sink has not committed."""
    stretches = [Position(p.topic, p.partition, p.committed, max(p.committed, p.begin), p.end) for p in behind]
    return {_identity(pipeline, row) for row in log.rows(stretches, schema)}


def set_aside(log: LogReader, pipeline: Pipeline, schema: Any, dead_letters: list[Position]) -> Collection[Identity]:
    """Return the rows that the sink could not write, by its dead letters."""
    return {_identity(pipeline, row) for row in log.dead_rows(dead_letters, schema)}


def recomputed_ledger(recomputed: Recomputed, partition: int) -> dict[str, int] | None:
    """Return the oracle's account of a partition; None when not every key was folded."""
    if recomputed.sample is not None:
        return None
    for part in recomputed.parts:
        if part.partition == partition and partition not in recomputed.whole_from:
            return {name: getattr(part.result.ledger, name) for name in LEDGER}
    return None


def _identity(pipeline: Pipeline, row: Mapping[str, Any]) -> Identity:
    return tuple(row[name] for name in pipeline.key), row["window_start"]
