"""Checkpoints: packed and unpacked unchanged, and damage of any kind found."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.errors import CheckpointError
from fluvial.stream_apps.checkpoint_format import digest, pack, unpack

SNAPSHOT: dict[str, Any] = {
    "topic": "iot.readings", "partition": 3, "generation": 1, "records": 7, "ticks": 0, "dead_lettered": 2,
    "ledger": {"sensor_minute": {"records": 7}},
    "components": {
        "sensor_minute": {
            "fingerprint": "abc", "next_offset": 42,
            "arrays": {
                "ki": np.arange(16, dtype=np.int64).reshape(2, 8), "wf": np.array([[1.5, -0.0]]),
                "none": np.empty((0, 3), np.int64),
            },
        },
        "rekey:x": {"fingerprint": "def", "next_offset": 41, "arrays": {"time": np.array([-(1 << 62)], np.int64)}},
    },
}  # fmt: skip


def test_a_snapshot_comes_back_as_it_was() -> None:
    found = unpack(pack(SNAPSHOT))
    assert {k: v for k, v in found.items() if k != "components"} == {
        k: v for k, v in SNAPSHOT.items() if k != "components"
    }
    for name, part in SNAPSHOT["components"].items():
        assert found["components"][name]["next_offset"] == part["next_offset"]
        for key, array in part["arrays"].items():
            other = found["components"][name]["arrays"][key]
            assert other.dtype == array.dtype
            assert other.shape == array.shape
            assert other.tobytes() == array.tobytes()


@given(st.data())
def test_any_flipped_bit_changes_the_digest(data: st.DataObject) -> None:
    packed = bytearray(pack(SNAPSHOT))
    before = digest(bytes(packed))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    assert digest(bytes(packed)) != before


@given(st.data())
def test_a_truncated_checkpoint_is_refused_and_never_crashes(data: st.DataObject) -> None:
    packed = pack(SNAPSHOT)
    with pytest.raises(CheckpointError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])
