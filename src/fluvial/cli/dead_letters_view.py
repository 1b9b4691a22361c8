"""How dead letters are printed."""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from fluvial.cli.console import columns

if TYPE_CHECKING:
    from fluvial.services.dead_letter_show import Shown
    from fluvial.services.dead_letters import Group, Letter, Summary

HEX_BYTES = 512
MESSAGE_WIDTH = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def list_as_text(summary: "Summary", repeats: int, *, by_partition: bool) -> None:
    """Print the groups, then the newest letters one by one."""
    if not summary.records:
        typer.echo("No dead letters.", err=True)
        return
    groups = sorted(summary.groups.values(), key=lambda g: (g.topic, -g.records))
    states = [s for s in ("open", "failed again", "redriven", "discarded") if any(_counted(g, s) for g in groups)]
    head = ("TOPIC", "PARTITION" if by_partition else "PARTITIONS", "STAGE", "ERROR", *map(str.upper, states))
    rows = [
        (
            *(g.topic, " ".join(map(str, sorted(g.partitions))), g.stage, g.error_type),
            *(f"{_counted(g, s):,}" for s in states),
            *(_time(g.first)[:19] + "Z", _time(g.last)[:19] + "Z"),
        )
        for g in groups
    ]
    typer.echo(columns((*head, "FIRST", "LAST"), rows))
    newest = summary.newest
    if newest:
        typer.echo("")
        lines = [
            (str(x.place), _time(x.place.timestamp), state, x.stage, x.error_type, _cut(x.cause)) for x, state in newest
        ]
        typer.echo(columns(("PLACE", "TIMESTAMP", "STATE", "STAGE", "ERROR", "WHY"), lines))
    if newest and len(newest) < summary.records:
        typer.echo(f"\nThe newest {len(newest):,} of {summary.records:,}; --limit shows more.", err=True)
    if repeats:
        typer.echo(f"Not counted: {repeats:,} repeats, of records that were set aside again.", err=True)


def list_as_json(summary: "Summary") -> None:
    """Print a line per letter."""
    for letter, state in summary.newest:
        typer.echo(json.dumps({**_plain(letter), "state": state}))


def shown_as_text(shown: "Shown") -> None:
    """Print one letter in full."""
    x = shown.letter
    typer.echo(f"{x.place}  {shown.state}")
    lines = [
        ("timestamp", f"{_time(x.place.timestamp)} in Kafka"),
        ("set aside", _time(x.set_aside) + (f", {shown.times} times" if shown.times > 1 else "")),
        ("failed at", f"{x.stage}, {x.error_type}"),
        ("why", x.cause),
        ("now", shown.now),
        ("key", "none" if x.key is None else _text(x.key)),
        *((f"header {name}", "null" if value is None else _text(value)) for name, value in x.headers),
    ]
    if x.attempts:
        lines.append(("redriven", f"{x.attempts} time{'s' * (x.attempts > 1)}, first set aside as {x.origin}"))
    if shown.mark is not None:
        lines.append((shown.mark.state, _time(shown.mark.at) + (f": {shown.mark.reason}" if shown.mark.reason else "")))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(f"  {name:<{width}}  {text}")
    _payload(shown)


def shown_as_json(shown: "Shown") -> None:
    """Print one letter in full as one object; bytes are hex."""
    x, mark = shown.letter, shown.mark
    out: dict[str, Any] = {**_plain(x), "state": shown.state, "times_set_aside": shown.times}
    out |= {
        "payload": None if x.payload is None else x.payload.hex(),
        "would_pass": shown.passes,
        "now": shown.now,
        "schema": shown.schema,
        "decoded": shown.decoded.fields if shown.decoded else None,
        "decoding_stopped": shown.decoded.stopped if shown.decoded else None,
        "handled_at": _time(mark.at) if mark else None,
        "reason": mark.reason if mark else None,
    }
    typer.echo(json.dumps(out))


def _payload(shown: "Shown") -> None:
    payload = shown.letter.payload
    if payload is None:
        left = shown.letter.left_out
        typer.echo(f"\npayload: {left:,} bytes, too large to be kept here as well" if left else "\npayload: null")
        return
    typer.echo(f"\npayload: {len(payload):,} bytes")
    for at in range(0, min(len(payload), HEX_BYTES), 16):
        part = payload[at : at + 16]
        shown_text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        typer.echo(f"  {at:06x}  {part.hex(' '):<47}  {shown_text}")
    if len(payload) > HEX_BYTES:
        typer.echo(f"  … {len(payload) - HEX_BYTES:,} more; --format json has them")
    typer.echo(f"\ndecoded: {shown.schema}")
    if shown.decoded is not None:
        width = max((len(name) for name in shown.decoded.fields), default=0)
        for name, value in shown.decoded.fields.items():
            typer.echo(f"  {name:<{width}}  {json.dumps(value, ensure_ascii=False)}")
        if shown.decoded.stopped:
            typer.echo(f"  stopped at {shown.decoded.stopped}")


def _plain(x: "Letter") -> dict[str, Any]:
    return {
        "topic": x.place.topic,
        "partition": x.place.partition,
        "offset": x.place.offset,
        "timestamp": _time(x.place.timestamp),
        "set_aside": _time(x.set_aside),
        "stage": x.stage,
        "error_type": x.error_type,
        "error_message": x.error_message,
        "key": None if x.key is None else _text(x.key),
        "headers": [{"name": n, "value": None if v is None else _text(v)} for n, v in x.headers],
        "redriven_times": x.attempts,
        "origin": x.origin,
    }


def _counted(group: "Group", state: Any) -> int:
    return group.states[state]


def _time(ms: int) -> str:
    try:
        return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{ms} ms"


def _text(value: bytes) -> str:
    text = value.decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else f"0x{value.hex()}"


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_WIDTH else text[: MESSAGE_WIDTH - 1] + "…"
