"""``fluvial init``."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from fluvial.schemas.findings import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="How to print the report.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the summary, and what differs.")] = False,
) -> None:
    """Create topics, schemas, keyspace and tables, and verify what exists.

    Run it as often as you like: what is missing is created, nothing that exists is altered. Something that exists with
    other settings than declared is reported with a way to mend it, and the exit code is then 1.

    Example: fluvial init
    """
    from fluvial.schemas.provision import init as provision
    from fluvial.services.declared import load_catalog
    from fluvial.settings import load_settings

    settings = load_settings()
    report = provision(
        settings.kafka,
        settings.registry,
        settings.cassandra,
        settings.worker.group,
        load_catalog(settings.worker),
    )
    if output == "json":
        _print_json(report)
    else:
        _print_text(report, quiet)
    if not report.ok:
        raise typer.Exit(1)


def _print_json(report: "Report") -> None:
    import json
    from dataclasses import asdict

    typer.echo(json.dumps([asdict(f) for f in report.findings], indent=2))


def _print_text(report: "Report", quiet: bool) -> None:
    for f in report.findings:
        if f.state == "created" and not quiet:
            typer.echo(f"created  {f.kind} {f.name}")
    for f in report.findings:
        for d in f.differences:
            told = f"{f.kind} {f.name}: {d.setting} is {d.found}, declared {d.declared}"
            typer.echo(f"differs  {told}; to mend: {d.hint}")
    created, verified, differ = (report.count(state) for state in ("created", "verified", "differs"))
    typer.echo(f"{created} created, {verified} verified, {differ} differ from what is declared.")
