"""``fluvial feed``: social feeds into the topic of posts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(feed)


def feed(
    kind: Annotated[Literal["bluesky", "mastodon", "wikimedia", "ndjson"], typer.Argument(help="Which feed.")],
    url: Annotated[str | None, typer.Option(help="Another server than the usual one.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="FLUVIAL_FEED_TOKEN", help="For Mastodon servers that ask for one.")
    ] = None,
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="ndjson: a file of posts.")] = None,
    command: Annotated[str | None, typer.Option(help="ndjson: a command that prints posts.")] = None,
    name: Annotated[str | None, typer.Option(help="The cursor's name, where one kind is fed twice.")] = None,
) -> None:
    """Publish what a social feed says: posts to social.posts, deletions to social.deletions.

    How far it is, is kept in Kafka once everything before it has been acknowledged: run it anywhere, again, and it goes on
    there. Authors become pseudonyms (gateway.pseudonyms). Ctrl-C or SIGTERM ends it cleanly.

    Example: fluvial feed bluesky
    """
    import asyncio

    from fluvial.cli.settings import settings_for
    from fluvial.services.declared import load_catalog
    from fluvial.services.feeding import run_feed, source_of

    settings = settings_for({})
    source = source_of(kind, name=name, url=url, token=token, path=file, command=command)
    feeder = asyncio.run(run_feed(settings, load_catalog(settings.worker), source, _progress()))
    _summary(feeder.counts, feeder.reasons)


def _progress() -> "Callable[[Counter[str]], None]":
    import sys
    import time

    begun = last = time.monotonic()

    def report(counts: "Counter[str]") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10:
            last = now
            sys.stderr.write(f"[{now - begun:7.0f} s] {counts['post']:,} posts, {counts['deletion']:,} deletions\n")
            sys.stderr.flush()

    return report


def _summary(counts: "Counter[str]", reasons: "Counter[str]") -> None:
    typer.echo(
        f"{counts['post']:,} posts and {counts['deletion']:,} deletions acknowledged; {counts['rejected']:,} rejected, "
        f"{counts['unreadable']:,} unreadable, {counts['repeated']:,} repeated, {counts['other']:,} of other kinds; "
        f"{counts['reconnected']:,} reconnections, {counts['gaps']:,} gaps"
    )
    for reason, n in reasons.most_common(10):
        typer.echo(f"  {n:,} × {reason}", err=True)
