"""SenML (RFC 8428) packs as sensor readings: base values resolved, one reading per numeric record."""

from typing import Any

from fluvial.producers.gateway.intake import Unreadable

# CBOR labels (RFC 8428, table 4).
LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
# Times below this are relative to now (RFC 8428, section 4.5.3).
RELATIVE_BELOW = 2**28


class SenmlError(ValueError):
    """The pack is not SenML."""


def readings(pack: Any, now_ms: int) -> list[Any]:
    """Return one reading (as the fields of a SensorReading) per record with a value, or why it is none.

    The resolved name is sensor and metric, divided at its last ":" or "/"; without one the metric is "value". Booleans
    are 0 and 1; records with texts, data or only a sum are not readings.
    """
    if not isinstance(pack, list):
        return [Unreadable("a SenML pack is a list")]
    out: list[Any] = []
    base: dict[str, Any] = {}
    for record in pack:
        if not isinstance(record, dict):
            out.append(Unreadable("a SenML record is an object"))
            continue
        fields: dict[Any, Any] = {LABELS.get(k, k) if isinstance(k, int) else k: v for k, v in record.items()}
        base |= {k: v for k, v in fields.items() if k in ("bver", "bn", "bt", "bu", "bv", "bs")}
        if fields.keys() & {"v", "vb", "vs", "vd", "s"}:
            out.append(_reading(fields, base, now_ms))
        elif not fields.keys() & {"bn", "bt", "bu", "bv", "bs", "bver"}:
            out.append(Unreadable("a SenML record without a value"))
    return out


def _reading(fields: dict[str, Any], base: dict[str, Any], now_ms: int) -> Any:
    try:
        name = str(base.get("bn", "")) + str(fields.get("n", ""))
        unknown = [k for k in fields if isinstance(k, str) and k.endswith("_")]
        if unknown:
            raise SenmlError(f"field {unknown[0]} must be understood and is not")
        if not name:
            raise SenmlError("no name")
        if "vb" in fields:
            value: Any = float(bool(fields["vb"]))
        elif "v" in fields:
            value = fields["v"] + base.get("bv", 0)
        else:
            raise SenmlError("not a number or a boolean")
        seconds = base.get("bt", 0) + fields.get("t", 0)
        at = now_ms + round(seconds * 1000) if seconds < RELATIVE_BELOW else round(seconds * 1000)
    except SenmlError as e:
        return Unreadable(f"SenML: {e}")
    except (TypeError, ValueError, OverflowError):
        return Unreadable("SenML: a value, sum or time that is not a number")
    cut = max(name.rfind(":"), name.rfind("/"))
    sensor, metric = (name[:cut], name[cut + 1 :]) if 0 < cut < len(name) - 1 else (name.rstrip(":/"), "value")
    return {
        "sensor_id": sensor, "metric": metric, "event_time": at, "value": value,
        "unit": fields.get("u", base.get("bu")),
    }  # fmt: skip
