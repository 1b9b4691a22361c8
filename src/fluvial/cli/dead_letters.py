"""``fluvial dead-letters``: list, show, redrive, discard."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from fluvial.schemas.registry import Registry
    from fluvial.services.dead_letter_check import Check
    from fluvial.services.dead_letter_log import DeadLetterLog
    from fluvial.services.dead_letter_redrive import Outcome
    from fluvial.services.dead_letters import Wanted
    from fluvial.settings import Settings

Topics = Annotated[
    list[str] | None, typer.Argument(help="Topics, e.g. iot.readings. None: all that have dead letters.")
]
Partitions = Annotated[list[int] | None, typer.Option("--partition", min=0, help="Only of this partition.")]
At = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="PARTITION:OFFSET", help="Only this record (of the one topic named)."),
]
Stages = Annotated[
    list[str] | None, typer.Option("--stage", help="Only those that failed there: decode, validate, process or write.")
]
Errors = Annotated[
    list[str] | None, typer.Option("--error", help="Only this error type, or a text in the error message.")
]
Since = Annotated[
    str | None,
    typer.Option("--from", help="First timestamp of the records in Kafka: 2026-03-01T12:00:00Z, a date, now, or -1h."),
]
Until = Annotated[str | None, typer.Option("--to", help="First timestamp that is left out.")]
Format = Annotated[Literal["table", "json"], typer.Option("--format", help="json is one object per line.")]
All = Annotated[bool, typer.Option("--all", help="Without any filter: all that are open.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

dead_letters = typer.Typer(name="dead-letters", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(dead_letters)


@dead_letters.callback()
def _dead_letters() -> None:
    """Look at records that could not be used, send them again, or discard them.

    Example: fluvial dead-letters list
    """


@dead_letters.command("list")
def list_(
    topics: Topics = None,
    state: Annotated[
        Literal["open", "redriven", "discarded", "all"],
        typer.Option(help="open: nothing was done about it yet (those that failed again included)."),
    ] = "open",
    stages: Stages = None,
    errors: Errors = None,
    since: Since = None,
    until: Until = None,
    partitions: Partitions = None,
    at: At = None,
    by_partition: Annotated[bool, typer.Option("--by-partition", help="A line per partition in the summary.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Show the newest so many one by one; the summary counts all.")] = 20,
    fmt: Format = "table",
) -> None:
    """Count dead letters by topic, stage and error, and list the newest. A record that was set aside twice counts once.

    Example: fluvial dead-letters list iot.readings --stage decode --from -1d
    """
    from fluvial.cli.dead_letters_view import list_as_json, list_as_text
    from fluvial.services.dead_letter_redrive import survey
    from fluvial.services.dead_letters import Summary

    _, registry, log = _opened()
    with registry:
        asked = log.topics(topics or [])
        wanted = _wanted(_states(state), topics, stages, errors, since, until, partitions, at)
        summary = Summary(limit, by_partition=by_partition)
        repeats = survey(log, asked, wanted, summary)
    _tell_unreadable(log)
    if fmt == "json":
        list_as_json(summary)
    else:
        list_as_text(summary, repeats, by_partition=by_partition)


@dead_letters.command()
def show(
    topic: Annotated[str, typer.Argument(help="Topic of the record, e.g. iot.readings.")],
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Its place, as `list` shows it.")],
    fmt: Format = "table",
) -> None:
    """Show a dead letter: its payload (also decoded, as far as it goes), why it failed, and whether it would pass now.

    Example: fluvial dead-letters show iot.readings 1:7268
    """
    from fluvial.cli.dead_letters_view import shown_as_json, shown_as_text
    from fluvial.services.dead_letter_show import show as find
    from fluvial.services.dead_letters import parse_at

    where = parse_at(place)
    settings, registry, log = _opened()
    with registry:
        found = find(log, registry, _check(settings, registry), topic, where)
    for one in found:
        if fmt == "json":
            shown_as_json(one)
        else:
            shown_as_text(one)


@dead_letters.command()
def redrive(
    topics: Topics = None,
    stages: Stages = None,
    errors: Errors = None,
    since: Since = None,
    until: Until = None,
    partitions: Partitions = None,
    at: At = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Send at most so many records a second.")] = None,
    max_attempts: Annotated[
        int, typer.Option(min=1, help="Leave records that were redriven so often already and failed again.")
    ] = 1,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Send also what would fail again by today's schemas and settings.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Send open dead letters to their topics again, once: same partition, key, value, headers and timestamp.

    Sending and marking as redriven is one transaction, so nothing is sent twice, whatever is interrupted or repeated. A
    record that would fail again, by today's schemas and settings, is left. The exit code is 1 when something was left.

    Example: fluvial dead-letters redrive iot.readings --error UnknownSchema --dry-run
    """
    from fluvial.services.dead_letter_redrive import (
        BATCH,
        OPEN,
        Handling,
        Outcome,
        Rules,
        paced,
        pending,
        sendable,
    )

    settings, registry, log = _opened()
    with registry:
        asked = log.topics(topics or [])
        wanted = _chosen(_wanted(OPEN, topics, stages, errors, since, until, partitions, at), topics, everything)
        rules = Rules(max_attempts, None if unchecked else _check(settings, registry))
        plan, ends = Outcome(), dict[tuple[str, int], int]()
        letters = pending(log, asked, wanted, seen=ends)
        plan.handled = sum(len(batch) for batch in sendable(letters, rules, plan, BATCH))
        if not plan.meant:
            typer.echo("Nothing to redrive: no open dead letter is meant.", err=True)
            return
        _tell_plan(plan, max_attempts)
        if dry_run or not plan.handled:
            raise typer.Exit(0 if dry_run or not plan.left else 1)
        if not yes:
            typer.confirm(f"Send {_counted(plan.handled, 'record')} again?", abort=True, err=True)
        size = max(1, min(BATCH, int(rate))) if rate else BATCH
        outcome = Outcome()
        with Handling(settings.kafka) as handling:
            # Only now no other redrive can be under way, and the marks are final.
            letters = pending(log, asked, wanted, upto=ends)
            for batch in paced(sendable(letters, rules, outcome, size), rate):
                refused = handling.redrive(batch)
                outcome.refused |= refused
                outcome.handled += len(batch) - len(refused)
    typer.echo(f"{_counted(outcome.handled, 'record')} sent again.")
    for place, why in outcome.refused.items():
        typer.echo(f"left: {place}: Kafka does not take it: {why}", err=True)
    if outcome.left:
        raise typer.Exit(1)


@dead_letters.command()
def discard(
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the mark.")],
    topics: Topics = None,
    stages: Stages = None,
    errors: Errors = None,
    since: Since = None,
    until: Until = None,
    partitions: Partitions = None,
    at: At = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be discarded, mark nothing.")] = False,
    yes: Yes = False,
) -> None:
    """Mark open dead letters as done with. Nothing is deleted: `list --state discarded` shows them, with the reason.

    Example: fluvial dead-letters discard iot.readings --error AheadOfTime --reason "clock of site 7"
    """
    from fluvial.services.dead_letter_redrive import BATCH, OPEN, Handling, pending
    from fluvial.services.dead_letters import in_batches

    settings, registry, log = _opened()
    with registry:
        asked = log.topics(topics or [])
        wanted = _chosen(_wanted(OPEN, topics, stages, errors, since, until, partitions, at), topics, everything)
        ends: dict[tuple[str, int], int] = {}
        count = sum(1 for _ in pending(log, asked, wanted, seen=ends))
        if not count or dry_run:
            typer.echo(
                f"{_counted(count, 'open dead letter')} would be discarded." if count else "Nothing to discard.",
                err=True,
            )
            return
        if not yes:
            typer.confirm(f"Discard {_counted(count, 'dead letter')}?", abort=True, err=True)
        done = 0
        with Handling(settings.kafka) as handling:
            for batch in in_batches(pending(log, asked, wanted, upto=ends), BATCH):
                handling.discard(batch, reason)
                done += len(batch)
    typer.echo(f"{_counted(done, 'dead letter')} discarded.")


def _opened() -> "tuple[Settings, Registry, DeadLetterLog]":
    from fluvial.cli.settings import settings_for
    from fluvial.schemas.registry import Registry
    from fluvial.services.dead_letter_log import DeadLetterLog

    settings = settings_for({})
    registry = Registry(settings.registry)
    return settings, registry, DeadLetterLog(settings.kafka, registry)


def _check(settings: "Settings", registry: "Registry") -> "Check":
    from fluvial.services.dead_letter_check import Check
    from fluvial.services.declared import load_catalog

    return Check(settings, load_catalog(settings.worker), registry)


def _states(state: str) -> frozenset[str]:
    return {"all": frozenset[str](), "open": frozenset({"open", "failed again"})}.get(state, frozenset({state}))


def _wanted(
    states: frozenset[str],
    topics: list[str] | None,
    stages: list[str] | None,
    errors: list[str] | None,
    since: str | None,
    until: str | None,
    partitions: list[int] | None,
    at: list[str] | None,
) -> "Wanted":
    from datetime import UTC, datetime

    from fluvial.instants import instant
    from fluvial.services.dead_letters import DeadLetterError, Wanted, parse_at

    now = datetime.now(UTC)
    if at and len(topics or []) != 1:
        raise DeadLetterError("--at needs to know the topic", hint="name one: … iot.readings --at 1:7268")
    for stage in stages or []:
        if stage not in ("decode", "validate", "process", "write"):
            raise DeadLetterError(f"there is no stage {stage!r}", hint="it is decode, validate, process or write")
    return Wanted(
        frozenset(partitions or []),
        frozenset(parse_at(a) for a in at or []),
        frozenset(stages or []),
        tuple(errors or []),
        int(instant(since, now).timestamp() * 1000) if since else None,
        int(instant(until, now).timestamp() * 1000) if until else None,
        states,
    )


def _chosen(wanted: "Wanted", topics: list[str] | None, everything: bool) -> "Wanted":
    """Return what is wanted, if that was said."""
    from fluvial.services.dead_letters import DeadLetterError

    filtered = bool(topics) or not wanted.everything
    if not filtered and not everything:
        raise DeadLetterError(
            "that would be all dead letters of all topics", hint="name a topic or a filter, or say --all"
        )
    if everything and not wanted.everything:
        raise DeadLetterError("--all and a filter exclude each other", hint="leave one of them out")
    return wanted


def _tell_plan(plan: "Outcome", max_attempts: int) -> None:
    typer.echo(f"{_counted(plan.meant, 'open dead letter')}: {plan.handled:,} can be sent again.", err=True)
    if plan.exhausted:
        told = f"left: {plan.exhausted:,} failed again when redriven"
        typer.echo(f"{told}; --max-attempts {max_attempts + 1} tries once more.", err=True)
    for count, reason in sorted(plan.failing.values(), reverse=True):
        typer.echo(f"left: {count:,} would fail again: {reason}", err=True)
    if plan.failing:
        typer.echo("Mend the cause first, or discard them.", err=True)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _tell_unreadable(log: "DeadLetterLog") -> None:
    if log.unreadable:
        told = f"{_counted(log.unreadable, 'record')} of the dead-letter topics cannot be read as such"
        typer.echo(f"{told}; the first is {log.first_unreadable}", err=True)
