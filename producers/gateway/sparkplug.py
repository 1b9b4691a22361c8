"""Sparkplug B: births name the metrics, data refer to them by alias, sequence numbers tell what is missing."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from fluvial.producers.gateway.intake import Unreadable
from fluvial.schemas import sparkplug_pb2 as pb

# Sparkplug 3.0, 6.4.16: signed integers travel as unsigned ones of 32 or 64 bits.
SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}
BIRTHS, DATA, DEATHS = {"NBIRTH", "DBIRTH"}, {"NDATA", "DDATA"}, {"NDEATH", "DDEATH"}
SEQUENCE = 256


@dataclass(slots=True)
class _Node:
    """One edge node: its next sequence number, and by device ("" is the node itself) the metrics by alias."""

    next: int | None = None
    names: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)


class SparkplugNodes:
    """What all edge nodes have announced. ``gaps`` counts sequence numbers that did not come."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], _Node] = {}
        self.gaps = 0

    def events_of(self, mqtt_topic: str, payload: bytes, received_ms: int) -> tuple[list[Any], str | None]:
        """Return the readings of a message, and the topic to ask for a rebirth on, when something was missed.

        sensor_id is ``group/node`` or ``group/node/device``, metric the metric's name; booleans are 0 and 1; texts, nulls
        and other kinds are not readings.
        """
        levels = mqtt_topic.split("/")
        if len(levels) not in (4, 5) or levels[2] not in BIRTHS | DATA | DEATHS:
            return [], None  # STATE and commands
        _, group, kind, name, *rest = levels
        device = rest[0] if rest else ""
        try:
            message = pb.Payload.FromString(payload)
        except DecodeError:
            return [Unreadable("not a Sparkplug B payload")], None
        node = self._nodes.setdefault((group, name), _Node())
        rebirth = f"spBv1.0/{group}/NCMD/{name}"
        if kind in DEATHS:
            node.names.pop(device, None)
            if kind == "NDEATH":
                node.names.clear()
                node.next = None
                return [], None
        missed = self._missed(node, kind, message)
        if kind in BIRTHS:
            if kind == "NBIRTH":
                node.names.clear()
            node.names[device] = {m.alias: (m.name, m.datatype) for m in message.metrics if m.HasField("alias")}
        sensor = "/".join((group, name, *rest))
        known = node.names.get(device, {})
        events = list(_readings(sensor, message, known, received_ms))
        unknown = any(isinstance(e, Unreadable) and e.reason.startswith("an alias") for e in events)
        return events, rebirth if missed or unknown else None

    def _missed(self, node: _Node, kind: str, message: pb.Payload) -> bool:
        if not message.HasField("seq"):
            return False
        wanted, node.next = node.next, (message.seq + 1) % SEQUENCE
        if kind == "NBIRTH" or wanted is None:
            return kind != "NBIRTH" and wanted is None
        gap = (message.seq - wanted) % SEQUENCE
        self.gaps += gap
        return gap > 0


def rebirth_payload() -> bytes:
    """Return the command that makes an edge node announce itself again."""
    metric = pb.Payload.Metric(name="Node Control/Rebirth", datatype=11, boolean_value=True)
    return bytes(pb.Payload(metrics=[metric]).SerializeToString())


def _readings(sensor: str, message: pb.Payload, known: dict[int, tuple[str, int]], received_ms: int) -> Iterable[Any]:
    for m in message.metrics:
        name, datatype = m.name, m.datatype
        if m.HasField("alias") and not name:
            if m.alias not in known:
                yield Unreadable(f"an alias ({m.alias}) that no birth has named")
                continue
            name, announced = known[m.alias]
            datatype = datatype or announced
        kind = m.WhichOneof("value")
        if m.is_null or kind in (None, "string_value", "bytes_value") or name.startswith(("Node Control/", "bdSeq")):
            continue
        value = getattr(m, kind)
        if kind in ("int_value", "long_value") and datatype in SIGNED:
            bits = SIGNED[datatype]
            value &= (1 << bits) - 1
            value -= (1 << bits) if value >> (bits - 1) else 0
        at = (
            m.timestamp
            if m.HasField("timestamp")
            else message.timestamp
            if message.HasField("timestamp")
            else received_ms
        )
        yield {"sensor_id": sensor, "metric": name, "event_time": at, "value": float(value)}
