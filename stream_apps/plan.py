"""Which topics a worker reads, and what happens to each: derived from the declared pipelines."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fluvial.errors import PipelineError
from fluvial.schemas.declarations import Pipeline, Rekey

LATE_SUFFIX = ".late"
DEAD_LETTER_SUFFIX = ".dead-letter"


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """What is done with the records of one source topic.

    ``rekeys`` copy its events; ``forwards`` copy the final rows of its pipelines (by pipeline name). ``upstream`` is the
    topic whose partitions feed this one when it is rekeyed, else None.
    """

    topic: str
    event: str
    event_time: str
    pipelines: tuple[Pipeline, ...]
    rekeys: tuple[Rekey, ...]
    forwards: Mapping[str, tuple[Rekey, ...]]
    upstream: str | None

    @property
    def late_topic(self) -> str:
        """Where late events go."""
        return self.topic + LATE_SUFFIX

    @property
    def dead_letter_topic(self) -> str:
        """Where bad records go."""
        return self.topic + DEAD_LETTER_SUFFIX


def chosen(pipelines: Sequence[Pipeline], names: str) -> tuple[Pipeline, ...]:
    """Return the named pipelines (comma separated; empty: all) and those that feed them.

    Raises:
        PipelineError: an unknown name; the message lists the known ones.
    """
    by_name = {p.name: p for p in pipelines}
    wanted = [n.strip() for n in names.split(",") if n.strip()] or list(by_name)
    unknown = [n for n in wanted if n not in by_name]
    if unknown:
        raise PipelineError(f"unknown pipeline {unknown[0]!r}", hint=f"declared are {', '.join(sorted(by_name))}")
    by_result = {p.result_topic: p for p in pipelines}
    out: dict[str, Pipeline] = {}
    queue = [by_name[n] for n in wanted]
    while queue:
        p = queue.pop()
        if p.name not in out:
            out[p.name] = p
            queue += [by_result[r.source] for r in p.upstream if r.source in by_result]
    return tuple(p for p in pipelines if p.name in out)


def plan_topics(pipelines: Iterable[Pipeline]) -> dict[str, TopicPlan]:
    """Return the plan of every topic that the pipelines read, by topic.

    Raises:
        PipelineError: pipelines of one topic disagree about its events.
    """
    pipelines = tuple(pipelines)
    results = {p.result_topic: p for p in pipelines}
    plans: dict[str, TopicPlan] = {}

    def at(topic: str, event: str, event_time: str) -> TopicPlan:
        plan = plans.get(topic)
        if plan is None:
            return TopicPlan(topic, event, event_time, (), (), {}, None)
        if event and plan.event and (plan.event, plan.event_time) != (event, event_time):
            raise PipelineError(
                f"pipelines read {topic} as {plan.event} and as {event}", hint="one topic holds one kind of event"
            )
        return plan if plan.event else replace(plan, event=event, event_time=event_time)

    for p in pipelines:
        plan = at(p.source, p.event, p.event_time)
        upstream = p.upstream[0].source if p.upstream else None
        if upstream in results:
            upstream = results[upstream].source
        plans[p.source] = replace(plan, pipelines=(*plan.pipelines, p), upstream=upstream)
    for rekey in dict.fromkeys(r for p in pipelines for r in p.upstream):
        if rekey.source in results:
            feeder = results[rekey.source]
            plan = plans[feeder.source]
            forwards = {**plan.forwards, feeder.name: (*plan.forwards.get(feeder.name, ()), rekey)}
            plans[feeder.source] = replace(plan, forwards=forwards)
        else:
            plan = at(rekey.source, "", "event_time")
            plans[rekey.source] = replace(plan, rekeys=(*plan.rekeys, rekey))
    return plans


def fingerprint(declared: Any) -> str:
    """Return a short digest of a declaration: a state made under another one is not this one's state."""
    return hashlib.sha256(repr(declared).encode()).hexdigest()[:16]
