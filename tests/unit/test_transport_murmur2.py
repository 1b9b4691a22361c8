"""The partitioner, held to Kafka's own vectors and to aiokafka's."""

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from fluvial.records import Spans
from fluvial.transport.murmur2 import NO_KEY, murmur2, partition_for


def spans(keys: list[bytes | None]) -> Spans:
    """Return keys as spans with a byte between them."""
    text = b"|".join(k or b"" for k in keys)
    lengths = [len(k or b"") for k in keys]
    starts = np.concatenate([[0], np.cumsum(np.array(lengths[:-1], np.int64) + 1)]).astype(np.int64)
    null = np.array([k is None for k in keys])
    return Spans(
        np.frombuffer(bytearray(text or b"|"), np.uint8), starts, np.where(null, -1, np.array(lengths, np.int64))
    )


# From Kafka's UtilsTest.testMurmur2.
@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_kafkas_own_vectors(key: bytes, hashed: int) -> None:
    assert murmur2(spans([b"x", key, b"yz"]))[1] == hashed


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40)), min_size=1, max_size=20), st.integers(1, 64))
def test_any_keys_go_where_aiokafka_puts_them(keys: list[bytes | None], partitions: int) -> None:
    expected = [NO_KEY if k is None else (aiokafka_murmur2(k) & 0x7FFFFFFF) % partitions for k in keys]
    assert partition_for(spans(keys), partitions).tolist() == expected
