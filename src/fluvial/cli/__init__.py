"""The command line: one file of this package per group of commands.

A new file ``cli/<name>.py`` has a function ``register(app: typer.Typer) -> None`` that adds its commands, and its name
is added to ``COMMAND_FILES``. These files import only typer and `fluvial.cli.console` at their top, and what is heavy
inside the commands, so that ``fluvial --help`` answers at once.
"""

import sys
from importlib import import_module
from typing import Annotated

import typer

from fluvial import __version__
from fluvial.cli.console import print_error
from fluvial.errors import FluvialError

COMMAND_FILES = (
    "demo",
    "cluster",
    "init",
    "import_",
    "simulate",
    "run",
    "worker",
    "sink",
    "ticker",
    "gateway",
    "keys",
    "push",
    "feed",
    "query",
    "ledger",
    "audit",
    "replay",
    "compare",
    "archive",
    "dead_letters",
    "settings",
)

EXIT_FAILED = 1


def build_app() -> typer.Typer:
    """Return the application with every command registered."""
    app = typer.Typer(
        name="fluvial",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_fluvial)
    for name in COMMAND_FILES:
        import_module(f"fluvial.cli.{name}").register(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 when it did its work, 1 when it failed, 2 when called wrongly, 130 on Ctrl-C."""
    try:
        build_app()(arguments)
    except FluvialError as e:
        print_error(e.message, e.hint)
        sys.exit(EXIT_FAILED)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fluvial {__version__}")
        raise typer.Exit


def _fluvial(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Events from sensors and social feeds, aggregated in event time, exact in Cassandra.

    Begin with: fluvial up
    """
