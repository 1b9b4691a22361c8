"""A snapshot of a stage as bytes and back: a JSON head, then the arrays, compressed and digested."""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import cramjam
import numpy as np

from fluvial.errors import CheckpointError

FORMAT = 1
PIECE_BYTES = 1 << 20
_HINT = "an older checkpoint or the log is used instead"


def pack(snapshot: Mapping[str, Any]) -> bytes:
    """Return a snapshot (plain values; arrays under components) as bytes."""
    arrays: list[np.ndarray[Any, Any]] = []
    parts: dict[str, Any] = {}
    for name, part in snapshot["components"].items():
        listed = {}
        for key, a in part["arrays"].items():
            listed[key] = {"dtype": a.dtype.str, "shape": a.shape}
            arrays.append(np.ascontiguousarray(a))
        parts[name] = {**part, "arrays": listed}
    head = json.dumps({**snapshot, "components": parts}, separators=(",", ":")).encode()
    # Piece by piece: a state may be a hundred megabytes, of which no second copy should be made.
    compressor = cramjam.zstd.Compressor(level=1)
    compressor.compress(struct.pack(">I", len(head)) + head)
    for a in arrays:
        flat = a.reshape(-1).view(np.uint8)
        for i in range(0, len(flat), PIECE_BYTES):
            compressor.compress(flat[i : i + PIECE_BYTES].tobytes())
    return bytes(compressor.finish())


def unpack(data: bytes) -> dict[str, Any]:
    """Return the snapshot that `pack` wrote.

    Raises:
        CheckpointError: the bytes are damaged.
    """
    try:
        body = bytes(cramjam.zstd.decompress(data))
        (n,) = struct.unpack_from(">I", body)
        snapshot: dict[str, Any] = json.loads(body[4 : 4 + n])
        at = 4 + n
        for part in snapshot["components"].values():
            for key, spec in part["arrays"].items():
                dtype, shape = np.dtype(spec["dtype"]), tuple(spec["shape"])
                count = int(np.prod(shape))
                part["arrays"][key] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
                at += count * dtype.itemsize
        if at != len(body):
            raise CheckpointError(f"a checkpoint has {len(body) - at} bytes too many", hint=_HINT)
    except (cramjam.DecompressionError, struct.error, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f"a checkpoint is damaged: {e}", hint=_HINT) from e
    return snapshot


def digest(data: bytes) -> str:
    """Return the digest that a manifest carries."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
