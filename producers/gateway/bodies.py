"""HTTP bodies → events: JSON, NDJSON, Avro, CloudEvents and SenML, unpacked within a limit."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
import pyarrow as pa

from fluvial.producers.gateway.gate import Check, RefusedError
from fluvial.producers.gateway.intake import Checked, TopicIntake, Unreadable, framed
from fluvial.producers.gateway.senml import readings
from fluvial.schemas.columns import spans_from_strings

Parsed = tuple[int, Check]
SINGLE_OBJECT = b"\xc3\x01"


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its Content-Encoding (identity, gzip, zstd), of at most ``limit`` bytes.

    Raises:
        RefusedError: too large, damaged, or of another encoding.
    """
    try:
        match encoding.strip().lower():
            case "" | "identity":
                out = body
            case "gzip" | "x-gzip":
                out = _gunzipped(body, limit)
            case "zstd":
                with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
                    out = stream.read(limit + 1)
            case other:
                raise RefusedError("invalid", f"Content-Encoding {other} is not known", hint="use gzip or zstd")
    except (OSError, zlib.error, EOFError, cramjam.DecompressionError) as e:
        raise RefusedError("invalid", f"the body is not {encoding}: {e}", hint="send it again") from None
    if len(out) > limit:
        raise RefusedError("too-large", f"the body has more than {limit:,} bytes unpacked", hint="send smaller batches")
    return out


def _gunzipped(body: bytes, limit: int) -> bytes:
    out, rest = b"", body
    while rest:  # a gzip body may have several members
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(rest, limit + 1 - len(out))
        if len(out) > limit:
            return out
        if not member.eof:
            raise EOFError("it ends in the middle")
        rest = member.unused_data
    return out


def parse(body: bytes, content_type: str) -> Parsed:
    """Return how many events a body has, and how they are checked.

    Raises:
        RefusedError: the body is not of its type, or the type is not known.
    """
    kind = content_type.partition(";")[0].strip().lower()
    parser = PARSERS.get(kind)
    if parser is None:
        raise RefusedError("invalid", f"Content-Type {kind or 'is missing'}", hint=f"send one of {', '.join(PARSERS)}")
    return parser(body)


def _objects(objects: list[Any]) -> Parsed:
    def check(intake: TopicIntake, now_ms: int, prefix: str) -> Checked:
        return intake.from_objects(objects, now_ms, prefix=prefix)

    return len(objects), check


def _json(body: bytes) -> Parsed:
    value = _loaded(body)
    if isinstance(value, Unreadable):
        raise RefusedError("invalid", value.reason, hint="send an object, or a list of objects")
    if isinstance(value, dict) and isinstance(value.get("events"), list):
        value = value["events"]
    return _objects(value if isinstance(value, list) else [value])


def _ndjson(body: bytes) -> Parsed:
    return _objects([_loaded(line) for line in body.split(b"\n") if line.strip()])


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        return Unreadable("not JSON: nested too deep")
    except ValueError as e:
        return Unreadable(f"not JSON: {e}")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _cloud_events(body: bytes) -> Parsed:
    """CloudEvents' JSON batch (also a single structured one): each event's data is an event of the topic."""
    value = _loaded(body)
    if not isinstance(value, list | dict):
        raise RefusedError("invalid", "not a CloudEvents batch", hint="send a JSON list of CloudEvents")
    return _objects([_data(e) for e in (value if isinstance(value, list) else [value])])


def _data(event: Any) -> Any:
    if not isinstance(event, dict) or not str(event.get("specversion", "")).startswith("1."):
        return Unreadable("not a CloudEvent of version 1.x")
    missing = [a for a in ("id", "source", "type") if not isinstance(event.get(a), str) or not event[a]]
    if missing:
        return Unreadable(f"a CloudEvent without {', '.join(missing)}")
    if "data_base64" in event:
        try:
            return _loaded(base64.b64decode(event["data_base64"], validate=True))
        except (ValueError, TypeError):
            return Unreadable("data_base64 is not base 64")
    return event.get("data", Unreadable("a CloudEvent without data"))


def _senml(load: Callable[[bytes], Any]) -> Callable[[bytes], Parsed]:
    def parser(body: bytes) -> Parsed:
        try:
            pack = load(body)
        except Exception as e:  # noqa: BLE001 – whatever a decoder makes of arbitrary bytes
            raise RefusedError("invalid", f"the body cannot be read: {type(e).__name__}", hint="see RFC 8428") from None

        def check(intake: TopicIntake, now_ms: int, prefix: str) -> Checked:
            if intake.event != "fluvial.iot.SensorReading":
                raise RefusedError("invalid", f"SenML is for sensor readings, not {intake.event}", hint="send JSON")
            return intake.from_objects(readings(pack, now_ms), now_ms, prefix=prefix)

        return (len(pack) if isinstance(pack, list) else 1), check

    return parser


def _cbor(body: bytes) -> Any:
    import cbor2

    return cbor2.loads(body)


def _avro(body: bytes) -> Parsed:
    """One event in Confluent's framing or as a single object, or several, each behind its length (4 bytes, big-endian)."""
    if body[:1] == b"\0" and len(body) >= 5 and not _whole_parts(body):
        return _payloads([body])
    if body[:2] == SINGLE_OBJECT:
        return _payloads([body])
    parts = _whole_parts(body)
    if not parts:
        raise RefusedError(
            "invalid", "not framed Avro", hint="send one framed event, or each behind its length in 4 bytes, big-endian"
        )
    return _payloads(parts)


def _whole_parts(body: bytes) -> list[bytes]:
    parts, at = [], 0
    while at + 4 <= len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        at += 4 + size
        parts.append(body[at - size : at])
        if size == 0:
            return []
    return parts if at == len(body) else []


def _payloads(parts: list[bytes]) -> Parsed:
    def check(intake: TopicIntake, now_ms: int, prefix: str) -> Checked:
        values = [framed_single(p, intake) if p[:2] == SINGLE_OBJECT else p for p in parts]
        return intake.from_framed(spans_from_strings(values), now_ms, prefix=prefix)

    return len(parts), check


def framed_single(event: bytes, intake: TopicIntake) -> bytes:
    """Return a single-object encoded event (of the topic's present schema) in Confluent's framing."""
    if event[2:10] != intake.fingerprint:
        return b"\xff" + event  # decodes as nothing: rejected with its reason
    return bytes(framed(intake.schema_id, [event[10:]]).buffer)


PARSERS: dict[str, Callable[[bytes], Parsed]] = {
    "application/json": _json,
    "application/x-ndjson": _ndjson,
    "application/jsonl": _ndjson,
    "application/cloudevents-batch+json": _cloud_events,
    "application/cloudevents+json": _cloud_events,
    "application/senml+json": _senml(json.loads),
    "application/senml+cbor": _senml(_cbor),
    "application/avro": _avro,
    "application/vnd.apache.avro+binary": _avro,
}
