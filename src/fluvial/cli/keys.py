"""``fluvial keys``: who may publish through a gateway."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fluvial.producers.gateway.keys import KeyFile


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(no_args_is_help=True, help="API keys of gateways: add, list, revoke.")
    keys.command("add")(add)
    keys.command("list")(list_)
    keys.command("revoke")(revoke)
    app.add_typer(keys, name="keys")


def add(
    name: Annotated[str, typer.Argument(help="Who has it, e.g. plant-7.")],
    topic: Annotated[list[str], typer.Option(help="A topic it may publish to; repeat for more.")],
    prefix: Annotated[str, typer.Option(help="What every sensor or author id must start with.")] = "",
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: the gateway's setting.")] = 0.0,
    show_only_key: Annotated[bool, typer.Option("--show-only-key", help="Print the key and nothing else.")] = False,
) -> None:
    """Make a key. It is shown once; only its digest is kept.

    Example: fluvial keys add plant-7 --topic iot.readings --prefix plant-7/
    """
    key = _file().add(name, tuple(topic), prefix, rate)
    if show_only_key:
        typer.echo(key)
        return
    typer.echo(f"{key}\n")
    typer.echo(f"This is the only time that it is shown. {name} may publish to {', '.join(topic)}", nl=False)
    typer.echo(f", ids that begin with {prefix!r} only." if prefix else ".")
    typer.echo("Send it as: Authorization: Bearer <key>")


def list_() -> None:
    """List all keys, without their secrets.

    Example: fluvial keys list
    """
    from fluvial.cli.console import columns

    stored = _file().all()
    if not stored:
        typer.echo("No keys yet. Make one: fluvial keys add NAME --topic iot.readings")
        return
    rows = [
        (
            k.name, k.id, ", ".join(k.topics), k.prefix or "any", f"{k.events_per_second:g}/s" if k.events_per_second else "-",
            k.created[:10], f"revoked {k.revoked[:10]}" if k.revoked else "valid",
        )
        for k in stored
    ]  # fmt: skip
    typer.echo(columns(("name", "id", "topics", "ids", "rate", "made", "state"), rows))


def revoke(name: Annotated[str, typer.Argument(help="The key's name or id.")]) -> None:
    """Make a key worthless, at once and for good.

    Example: fluvial keys revoke plant-7
    """
    gone = _file().revoke(name)
    typer.echo(f"{gone.name} ({gone.id}) is revoked.")


def _file() -> "KeyFile":
    from fluvial.cli.settings import settings_for
    from fluvial.producers.gateway.keys import KeyFile

    return KeyFile(settings_for({}).gateway.keys_file)
