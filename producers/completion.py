"""The ticks that close every window which holds an imported event, and no later one (docs/reference/semantics.md).

A keyed tick closes the windows of a record key where time is kept per key. Where time is the partition's, a partition
tick does. Behind a rekeying, a window holds events of all partitions and closes when every partition has announced its
end: so each partition, also one that got no event, is ticked as far as the latest event of the whole import demands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluvial.records import I64, Spans
from fluvial.schemas.declarations import Hopping, Pipeline, Rekey, Session
from fluvial.transport.murmur2 import partition_for

NONE = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Completion:
    """Instants (epoch ms) to tick: one per key, then one per partition (`NONE` where there is nothing to close)."""

    keys: Spans
    key_instant: I64
    partition_instant: I64


def completion(keys: Spans, latest: I64, topic: str, pipelines: Sequence[Pipeline], partitions: int) -> Completion:
    """Return the ticks that complete an import into ``topic``.

    ``keys`` are the different record keys, ``latest`` each one's greatest event time (epoch ms); ``pipelines`` are all
    declared ones, those of other topics too.
    """
    direct = [p for p in pipelines if p.source == topic]
    behind = [p for p in pipelines if p.source != topic and _comes_from(p.source, topic, pipelines)]
    per_partition = np.full(partitions, NONE, np.int64)
    if not len(keys):
        return Completion(keys, latest, per_partition)
    instants = np.full(len(keys), NONE, np.int64)
    for p in direct:
        instants = np.maximum(instants, closing_instant(latest, p, topic, pipelines))
    np.maximum.at(per_partition, partition_for(keys, partitions), instants)
    for p in behind:
        everywhere = closing_instant(latest.max(keepdims=True), p, topic, pipelines)
        per_partition = np.maximum(per_partition, everywhere)
    kept = instants > NONE
    return Completion(keys.take(kept), instants[kept], per_partition)


def closing_instant(times: I64, pipeline: Pipeline, topic: str, pipelines: Sequence[Pipeline]) -> I64:
    """Return the time that ``topic`` must have reached for each event's last window in a pipeline to be final."""
    at = _times_in(pipeline.source, times, topic, pipelines)
    _, end = _last_window(at, pipeline)
    return _needed(pipeline.source, end + pipeline.lateness_ms, topic, pipelines)


def _last_window(times: I64, pipeline: Pipeline) -> tuple[I64, I64]:
    """Return start and end of the last window that holds each event."""
    w = pipeline.window
    if isinstance(w, Session):
        return times, times + w.gap_ms
    step = w.hop_ms if isinstance(w, Hopping) else w.size_ms
    start = times // step * step
    return start, start + w.size_ms


def _times_in(source: str, times: I64, topic: str, pipelines: Sequence[Pipeline]) -> I64:
    """Return which event times a stage's records have that come from events of these times."""
    if source == topic:
        return times
    rekey = _maker(source, pipelines)
    assert rekey is not None
    rows = _by_result(rekey.source, pipelines)
    if rows is None:
        return _times_in(rekey.source, times, topic, pipelines)
    start, _ = _last_window(_times_in(rows.source, times, topic, pipelines), rows)
    return start


def _needed(source: str, instant: I64, topic: str, pipelines: Sequence[Pipeline]) -> I64:
    """Return the time that ``topic`` must have reached for the partitions of ``source`` to have reached an instant."""
    if source == topic:
        return instant
    rekey = _maker(source, pipelines)
    assert rekey is not None
    rows = _by_result(rekey.source, pipelines)
    if rows is None:
        return _needed(rekey.source, instant, topic, pipelines)
    # Final rows announce the greatest aligned end <= P − lateness, less (size − hop): rule R22.
    w = rows.window
    assert not isinstance(w, Session), "sessions are not rekeyed"
    step = w.hop_ms if isinstance(w, Hopping) else w.size_ms
    wanted = instant + (w.size_ms - step)
    end = w.size_ms - (w.size_ms - wanted) // step * step
    return _needed(rows.source, end + rows.lateness_ms, topic, pipelines)


def _comes_from(source: str, topic: str, pipelines: Sequence[Pipeline]) -> bool:
    if source == topic:
        return True
    rekey = _maker(source, pipelines)
    if rekey is None:
        return False
    rows = _by_result(rekey.source, pipelines)
    return _comes_from(rekey.source if rows is None else rows.source, topic, pipelines)


def _maker(topic: str, pipelines: Sequence[Pipeline]) -> Rekey | None:
    return next((r for p in pipelines for r in p.upstream if r.topic == topic), None)


def _by_result(topic: str, pipelines: Sequence[Pipeline]) -> Pipeline | None:
    return next((p for p in pipelines if p.result_topic == topic), None)
