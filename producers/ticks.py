"""Ticks as records: a null value and an instant in a header (docs/reference/semantics.md)."""

from fluvial.transport.headers import TICK_HEADER
from fluvial.transport.publisher import OutRecord


def keyed_tick(key: bytes, instant: int) -> OutRecord:
    """Return the record that says: no event of this key before ``instant`` (epoch ms) will follow."""
    return OutRecord(key, None, ((TICK_HEADER, b"%d" % instant),))


def partition_tick(partition: int, instant: int) -> OutRecord:
    """Return the record that says: no event before ``instant`` (epoch ms) will follow in this partition."""
    return OutRecord(None, None, ((TICK_HEADER, b"%d" % instant),), partition)
