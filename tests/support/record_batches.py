"""Record batches as bytes, built by aiokafka: what the parser is held against."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c


@dataclass(frozen=True)
class Rec:
    """One record; ``timestamp`` in epoch ms."""

    offset_delta: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def build(
    records: Sequence[Rec],
    *,
    base_offset: int = 0,
    codec: int = 0,
    producer_id: int = -1,
    transactional: bool = False,
    last_offset_delta: int | None = None,
    extra_attributes: int = 0,
    max_timestamp: int | None = None,
) -> bytes:
    """Return the batch; ``extra_attributes`` are further attribute bits: 8 is LogAppendTime, 32 control."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=producer_id,
        producer_epoch=0 if producer_id >= 0 else -1,
        base_sequence=0 if producer_id >= 0 else -1,
        batch_size=1 << 24,
    )
    for r in records:
        assert builder.append(r.offset_delta, r.timestamp, r.key, r.value, list(r.headers)) is not None
    raw = bytearray(builder.build())
    raw[0:8] = base_offset.to_bytes(8, "big")
    raw[21:23] = (int.from_bytes(raw[21:23], "big") | extra_attributes).to_bytes(2, "big")
    if last_offset_delta is not None:
        raw[23:27] = last_offset_delta.to_bytes(4, "big")
    if max_timestamp is not None:
        raw[35:43] = max_timestamp.to_bytes(8, "big")
    return sealed(raw)


def sealed(raw: bytearray) -> bytes:
    """Return the batch with its checksum made right."""
    raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def marker(base_offset: int, producer_id: int, *, commit: bool) -> bytes:
    """Return the control batch that ends a transaction."""
    key = (0).to_bytes(2, "big") + int(commit).to_bytes(2, "big")
    record = Rec(0, 1_700_000_000_000, key, b"\0\0\0\0\0\0")
    return build([record], base_offset=base_offset, producer_id=producer_id, transactional=True, extra_attributes=0x20)
