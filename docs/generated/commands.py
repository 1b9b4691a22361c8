"""The page of commands, from the functions behind them."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer import Typer
from typer.models import ArgumentInfo

from fluvial.cli import build_app

from . import NOTE, cell

HEAD = f"""{NOTE}

# Commands

`fluvial COMMAND --help` says the same. Data go to stdout, progress and logs to stderr. Exit codes: 0 done; 1 failed
(or, with `init`, `status` and `audit`, something is not as it should be); 2 called wrongly (or, with `audit`, nothing could
be checked); 130 ended by Ctrl-C.
"""
METAVARS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True)
class Command:
    """A command as its function describes it."""

    name: str
    function: Callable[..., Any]

    @property
    def told(self) -> str:
        """What the help says, without the example."""
        return self._parts()[0]

    @property
    def example(self) -> str:
        """The example that the help ends with, on one line; empty when there is none."""
        return " ".join(self._parts()[1].split())

    def _parts(self) -> tuple[str, str]:
        told, _, example = (inspect.getdoc(self.function) or "").partition("Example:")
        return told.strip(), example


def commands() -> list[Command]:
    """Return every command in the order of the help; those of a group have its name before theirs."""
    return list(_commands(build_app(), ""))


def _commands(app: Typer, group: str) -> Iterator[Command]:
    for registered in app.registered_commands:
        assert registered.callback is not None
        yield Command(group + (registered.name or registered.callback.__name__), registered.callback)
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, f"{group}{inner.name or inner.typer_instance.info.name} ")


def page() -> str:
    """Return the page."""
    return "\n".join([HEAD, *(line for c in commands() for line in _section(c))])


def _section(command: Command) -> Iterator[str]:
    yield f"## fluvial {command.name}\n"
    yield f"{command.told}\n"
    yield f"```console\n$ {command.example}\n```\n"
    rows = list(_rows(command.function))
    if rows:
        yield "| argument or option | what it does |"
        yield "|---|---|"
        yield from rows
        yield ""


def _rows(function: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])[:2]
        plain, many = _plain(kind)
        if isinstance(info, ArgumentInfo):
            required = parameter.default is inspect.Parameter.empty
            shown = f"`{name.upper()}`{' …' if many else ''}{'' if required else ' (optional)'}"
        else:
            declared = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str)]
            names = declared or [f"--{name.replace('_', '-')}"]
            shown = ", ".join(f"`{n}`" for n in "/".join(names).split("/"))
            if plain is not bool:
                shown += f" {cell(info.metavar or _metavar(plain))}{' (repeatable)' if many else ''}"
        text = (info.help or "").replace("\\[", "[")
        if parameter.default not in (None, inspect.Parameter.empty) and not isinstance(parameter.default, bool):
            text += f" [default: {parameter.default}]"
        yield f"| {shown} | {cell(text)} |"


def _plain(kind: Any) -> tuple[Any, bool]:
    """Return a type without ``| None`` and ``list``, and whether it was a list."""
    if type(None) in get_args(kind):
        kind = next(a for a in get_args(kind) if a is not type(None))
    return (get_args(kind)[0], True) if get_origin(kind) is list else (kind, False)


def _metavar(plain: Any) -> str:
    return " or ".join(f"`{a}`" for a in get_args(plain)) if get_origin(plain) is Literal else METAVARS[plain]
