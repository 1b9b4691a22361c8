"""Settings for a command, and ``fluvial config``."""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from fluvial.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(config)


def settings_for(flags: Mapping[str, Any]) -> "Settings":
    """Return the settings with a command's flags on top, and set up logging by them."""
    from fluvial import failpoints
    from fluvial.logs import set_up_logging
    from fluvial.settings import load_settings

    settings = load_settings(flags)
    failpoints.arm(os.environ)
    set_up_logging(settings.log_level, settings.log_format)
    return settings


def config(
    fmt: Annotated[
        Literal["text", "json", "toml"], typer.Option("--format", help="text explains each setting.")
    ] = "text",
) -> None:
    """Show the settings in use: flags, environment, fluvial.toml, the local cluster and defaults, merged; secrets masked.

    Set them in `fluvial.toml` ([kafka] brokers = "…"), or in the environment (FLUVIAL_KAFKA__BROKERS=…), which wins.

    Example: fluvial config --format json
    """
    from fluvial.settings import Settings, load_settings, masked

    values = masked(load_settings())
    if fmt == "json":
        typer.echo(json.dumps(values, indent=2))
        return
    defaults = masked(Settings())
    for name, value in sorted(values.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            model = Settings.model_fields[name].annotation
            doc = (model.__doc__ or "").strip().splitlines()[0] if model else ""
            typer.echo(f"\n[{name}]" + (f"  # {doc}" if fmt == "text" else ""))
            for leaf, v in value.items():
                _line(
                    leaf,
                    v,
                    defaults[name][leaf],
                    getattr(model, "model_fields", {})[leaf].description if fmt == "text" else "",
                )
        else:
            _line(name, value, defaults[name], Settings.model_fields[name].description if fmt == "text" else "")


def _line(name: str, value: Any, default: Any, description: str | None) -> None:
    shown = "# (unset)" if value is None else json.dumps(value, ensure_ascii=False)
    text = f"{'# ' if value is None else ''}{name} = {shown if value is not None else ''}".rstrip()
    notes = [description or "", f"default {json.dumps(default)}" if value != default else ""]
    note = "; ".join(n for n in notes if n)
    typer.echo(f"{text:<44}  # {note}" if note else text)
