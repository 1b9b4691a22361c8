"""What a replay will read: its windows, and the stretch of every partition that can hold their events."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fluvial import __version__
from fluvial.compiling import kernel_digest, kernel_sources
from fluvial.errors import PipelineError
from fluvial.query import iso
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Pipeline, Session, Table
from fluvial.services.replay_records import ReplayError
from fluvial.settings import Settings
from fluvial.stream_apps.plan import TopicPlan, chosen, plan_topics
from fluvial.stream_apps.replay_rules import Lateness, Span, event_times, widened


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What was asked for: a pipeline's rows of ``begin`` ≤ t < ``end`` (event time, epoch ms).

    ``rate`` bounds the records read per second (0: as fast as can be), ``workers`` the partitions worked on side by side;
    ``into`` is the suffix of a side table ("": the result topic); ``incomplete`` takes what retention has left;
    ``archive`` is a folder to read instead of the topic.
    """

    pipeline: str
    begin: int
    end: int
    lateness: Lateness = "unlimited"
    rate: float = 0
    workers: int = 2
    into: str = ""
    across_partitions: bool = False
    incomplete: bool = False
    archive: Path | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What there is to read: per partition the first offset left and the end, and a look-up by timestamp.

    ``since[p]`` is the first (offset, timestamp) whose timestamp is not before the instant that was asked about, or None.
    """

    bounds: Mapping[int, tuple[int, int]]
    since: Mapping[int, tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A replay of ``pipeline`` as `TopicPlan` has it: the windows ``span``, the offsets ``stretches`` per partition.

    ``notes`` are sentences for the operator.
    """

    pipeline: Pipeline
    topic: TopicPlan
    span: Span
    lateness: Lateness
    stretches: Mapping[int, tuple[int, int]]
    notes: tuple[str, ...]
    across_partitions: bool = False

    @property
    def offsets(self) -> int:
        """How many offsets are read: a record each, but for gaps."""
        return sum(end - start for start, end in self.stretches.values())


def pipeline_and_topic(settings: Settings, catalog: Catalog, name: str) -> tuple[Pipeline, TopicPlan]:
    """Return a pipeline and the plan of its source, the same one as the worker's where that runs the pipeline.

    Raises:
        PipelineError: there is no such pipeline.
    """
    by_name = {p.name: p for p in catalog.pipelines}
    if name not in by_name:
        raise PipelineError(f"unknown pipeline {name!r}", hint=f"declared are {', '.join(sorted(by_name))}")
    pipeline = by_name[name]
    of_worker = chosen(catalog.pipelines, settings.worker.pipelines)
    pipelines = of_worker if pipeline in of_worker else chosen(catalog.pipelines, name)
    return pipeline, plan_topics(pipelines)[pipeline.source]


def earliest_timestamp(settings: Settings, topic: TopicPlan, pipeline: Pipeline, span: Span) -> int:
    """Return the broker timestamp before which no record can matter to the range, epoch ms.

    A record's event is at most ``worker.max_ahead_seconds`` ahead of its broker timestamp, or it was dead-lettered; a tick
    that completes an import lies at most a window and the lateness after an event.
    """
    return event_times(pipeline, span)[0] - _reach(settings, topic, pipeline)


def plan_replay(
    settings: Settings, request: ReplayRequest, pipeline: Pipeline, topic: TopicPlan, source: Source
) -> ReplayPlan:
    """Return what a request reads. ``source.since`` answers for `earliest_timestamp`.

    Raises:
        ReplayError: the range is empty or lies ahead, or retention has deleted records that may belong to it.
    """
    if request.begin >= request.end:
        raise ReplayError("the range is empty", hint="--from must be before --to")
    if request.across_partitions and request.lateness != "unlimited":
        raise ReplayError(
            "across partitions there is no order in which anything could be late", hint="leave --lateness out"
        )
    span = widened(pipeline, request.begin, request.end)
    notes = [_range_note(pipeline, request, span)]
    why = _from_the_beginning(pipeline, request)
    if why:
        notes.append(f"{why}: it is read from its first record")
    missing = _deleted(settings, pipeline, span, source)
    if missing:
        partition, begins = missing
        told = f"{pipeline.source}[{partition}] has lost records to retention that may belong to the range"
        if not request.incomplete:
            raise ReplayError(told, hint=_earlier_hint(pipeline, begins, _reach(settings, topic, pipeline)))
        notes.append(f"{told}: windows are made of what is left, also where complete rows are now")
    stretches = {}
    for p, (first, end) in source.bounds.items():
        found = source.since[p]
        start = first if why else end if found is None else max(found[0], first)
        stretches[p] = (min(start, end), end)
    if request.archive is not None:
        notes.append(f"read from the archive in {request.archive}: what came after its end does not count")
    if request.across_partitions:
        notes.append(
            "partitions are folded together, one after the other, a key's events of all of them into one state"
        )
    return ReplayPlan(pipeline, topic, span, request.lateness, stretches, tuple(notes), request.across_partitions)


def fingerprint(plan: ReplayPlan) -> str:
    """Return a digest of everything beside the log that decides the rows: the declaration and this program."""
    shape = replace(plan.pipeline, table=Table("", ()), upstream=())
    program = __version__, kernel_digest(kernel_sources())
    told = (shape, plan.topic.pipelines, plan.lateness, plan.across_partitions, program)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def as_iso(ms: int) -> str:
    """Return an epoch millisecond in RFC 3339."""
    return iso(datetime.fromtimestamp(ms / 1000, UTC))


def _reach(settings: Settings, topic: TopicPlan, pipeline: Pipeline) -> int:
    longest = max(_length(p) + p.lateness_ms for p in (*topic.pipelines, pipeline))
    return int(settings.worker.max_ahead_seconds * 1000) + longest


def _length(p: Pipeline) -> int:
    return p.window.gap_ms if isinstance(p.window, Session) else p.window.size_ms


def _range_note(pipeline: Pipeline, request: ReplayRequest, span: Span) -> str:
    if isinstance(pipeline.window, Session):
        return f"sessions that start from {as_iso(span.begin)} to {as_iso(span.end)}"
    last = event_times(pipeline, span)[1]
    assert last is not None
    wider = "" if (span.begin, last) == (request.begin, request.end) else ", widened to whole windows"
    return f"windows from {as_iso(span.begin)} to {as_iso(last)}{wider}"


def _from_the_beginning(pipeline: Pipeline, request: ReplayRequest) -> str:
    if request.lateness != "unlimited":
        return "what is late depends on the log's history"
    if pipeline.upstream:
        return f"the time of {pipeline.source}, a rekeyed topic, is announced in it"
    return ""


def _deleted(settings: Settings, pipeline: Pipeline, span: Span, source: Source) -> tuple[int, int | None] | None:
    """Return a partition that lost what may matter, and the timestamp of its first record left."""
    hours = settings.kafka.retention_hours
    kept_since = 0 if hours < 0 else int(time.time() * 1000) - hours * 3_600_000
    for p, (first, end) in sorted(source.bounds.items()):
        found = source.since[p]
        if first == 0:
            continue
        if found is not None and found[0] <= first:
            return p, found[1]
        if first == end and event_times(pipeline, span)[0] < kept_since:
            return p, None
    return None


def _earlier_hint(pipeline: Pipeline, begins: int | None, reach: int) -> str:
    accept = "--incomplete makes the windows of what is left"
    if begins is None:
        return accept
    # The first window of which no deleted record can be a part.
    whole = begins + reach + 1 + (pipeline.window.gap_ms if isinstance(pipeline.window, Session) else 0)
    return f"--from {as_iso(widened(pipeline, whole, whole + 1).end)} is whole; {accept}"
