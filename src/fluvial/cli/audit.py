"""``fluvial audit``: proof that nothing was lost, counted twice or written wrong."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fluvial.cli.console import progress

if TYPE_CHECKING:
    from fluvial.services.auditing import RowsAsked

WRONG, UNKNOWN = 1, 2
Level = Literal["ONE", "LOCAL_ONE", "TWO", "QUORUM", "LOCAL_QUORUM", "EACH_QUORUM", "ALL"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(audit)


def audit(
    pipeline: Annotated[
        list[str] | None, typer.Argument(help="Names of pipelines; without one, all that the worker runs.")
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Recompute rows from the log and compare every cell with Cassandra's.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Of so many keys only, chosen by --seed: all of their windows.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed chooses other keys.")] = 0,
    start: Annotated[
        str | None, typer.Option("--from", help="Only windows that start then or later: RFC 3339, a date, -1h, now.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Only windows that start before then.")] = None,
    consistency: Annotated[
        Level | None, typer.Option(help="The level to read at; default: cassandra.read_consistency.")
    ] = None,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Read from every node of the data centre by itself instead.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until the sink has written what there is.")
    ] = 30.0,
    limit: Annotated[int, typer.Option(min=0, help="Show so many differences of each table at most.")] = 20,
    by_partition: Annotated[
        bool, typer.Option("--by-partition", help="A line per partition instead of their sums.")
    ] = False,
    fmt: Annotated[Literal["table", "json"], typer.Option("--format", help="json is one document.")] = "table",
) -> None:
    """Prove that all is right: every record has one fate, the log has what was counted, the rows are what the log says.

    The books are those of the workers' newest checkpoints; the log, the late and the dead-letter topics are read and
    counted. With --recompute, an independent implementation recomputes the rows from the log and compares them with
    Cassandra, write timestamps included. Exit codes: 0 all right, 1 something does not add up, 2 it could not be checked.

    Example: fluvial audit sensor_minute --recompute --sample 100
    """
    from fluvial.cli.audit_view import as_json, as_text
    from fluvial.cli.console import print_error
    from fluvial.cli.settings import settings_for
    from fluvial.errors import FluvialError
    from fluvial.services.auditing import Auditor
    from fluvial.services.declared import load_catalog

    only = {"--sample": sample, "--from": start, "--to": end, "--consistency": consistency}
    given = [name for name, value in only.items() if value is not None] + ["--replicas"] * replicas
    if given and not recompute:
        raise typer.BadParameter(f"{given[0]} is about rows: add --recompute")
    if replicas and consistency is not None:
        raise typer.BadParameter("--replicas asks every node by itself: it has no consistency level")
    try:
        settings = settings_for({"cassandra.read_consistency": consistency})
        level = settings.cassandra.read_consistency
        rows = _rows(sample, seed, (start, end), level, replicas, limit, wait) if recompute else None
        with progress() as report:
            found = Auditor(settings, load_catalog(settings.worker), pipeline or [], report).audit(rows)
    except FluvialError as e:
        print_error(e.message, e.hint)
        raise typer.Exit(UNKNOWN) from None
    typer.echo(as_json(found) if fmt == "json" else as_text(found, by_partition=by_partition))
    if not found.ok:
        raise typer.Exit(WRONG)


def _rows(
    sample: int | None,
    seed: int,
    bounds: tuple[str | None, str | None],
    consistency: str,
    replicas: bool,
    limit: int,
    wait: float,
) -> "RowsAsked":
    from datetime import UTC, datetime

    from fluvial.instants import instant
    from fluvial.oracle.recompute import Span
    from fluvial.services.audit_recompute import Asked
    from fluvial.services.auditing import RowsAsked

    now = datetime.now(UTC)
    begin, end = (None if text is None else round(instant(text, now).timestamp() * 1000) for text in bounds)
    return RowsAsked(Asked(sample, seed, Span(begin, end)), consistency, replicas, limit, wait)
