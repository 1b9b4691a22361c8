"""A replay's plan as a row of the table ``replays``, and back: so that a killed one goes on where it was."""

from datetime import UTC, datetime

from fluvial.schemas.declarations import Pipeline
from fluvial.services.replay_plan import ReplayPlan, fingerprint
from fluvial.services.replay_records import READING, WRITING, ReplayError, ReplayRecord, ReplayRecords
from fluvial.stream_apps.plan import TopicPlan
from fluvial.stream_apps.replay_rules import Lateness, Span


def new_run(plan: ReplayPlan, origin: str, destination: str, worker_generation: int) -> ReplayRecord:
    """Return the record of a run that begins; its generation is still to be allocated."""
    now = datetime.now(UTC)
    return ReplayRecord(
        pipeline=plan.pipeline.name, generation=0, status=READING, origin=origin, destination=destination,
        range_begin=as_instant(plan.span.begin), range_end=as_instant(plan.span.end), lateness=str(plan.lateness),
        across_partitions=plan.across_partitions, starts={p: start for p, (start, _) in plan.stretches.items()},
        ends={p: end for p, (_, end) in plan.stretches.items()}, worker_generation=worker_generation,
        fingerprint=fingerprint(plan), finished=frozenset(), changed=0, added=0, unchanged=0, started_at=now, updated_at=now,
    )  # fmt: skip


def unfinished_run(records: ReplayRecords, pipeline: str, destination: str) -> ReplayRecord:
    """Return the newest run into a destination that did not finish. Blocking.

    Raises:
        ReplayError: there is none.
    """
    for record in records.of(pipeline):
        if record.status in (READING, WRITING) and record.destination == destination:
            return record
    raise ReplayError(
        f"no replay of {pipeline} into {destination} is unfinished", hint="leave --resume out to begin one"
    )


def plan_of_run(record: ReplayRecord, origin: str, pipeline: Pipeline, topic: TopicPlan) -> ReplayPlan:
    """Return the plan that a run was begun with.

    Raises:
        ReplayError: another program or declaration would now make other rows of it, or it read from elsewhere.
    """
    if record.origin != origin:
        raise ReplayError(
            f"generation {record.generation} was read from {record.origin}", hint="read it from there again"
        )
    lateness: Lateness = (
        "declared" if record.lateness == "declared"
        else "unlimited" if record.lateness == "unlimited"
        else int(record.lateness)
    )  # fmt: skip
    span = Span(as_ms(record.range_begin), as_ms(record.range_end))
    stretches = {p: (record.starts[p], end) for p, end in record.ends.items()}
    note = f"going on with generation {record.generation}, begun {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    plan = ReplayPlan(pipeline, topic, span, lateness, stretches, (note,), record.across_partitions)
    if fingerprint(plan) != record.fingerprint:
        raise ReplayError(
            f"generation {record.generation} was begun by another program or declaration of {record.pipeline}",
            hint="rows of one generation must not differ: begin a new replay, without --resume",
        )
    return plan


def as_instant(ms: int) -> datetime:
    """Return an epoch millisecond as an instant."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def as_ms(moment: datetime) -> int:
    """Return an instant as epoch ms."""
    return round(moment.timestamp() * 1000)
