"""Checkpoints as bytes: blocks of arrays, and the manifest that says where each block of a snapshot is stored.

A block is compressed by zstd (level 1), a shuffled one column by column, byte by byte: half the size in the same time for tables
of small integers. The manifest carries a digest of itself and of every block as it is stored, so that nothing damaged is used.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from math import prod
from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

from fluvial.errors import CheckpointError
from fluvial.stream_apps.hashing import hash_blocks
from fluvial.stream_apps.snapshots import Blocks

FORMAT = 2
_MAGIC = b"FLCP"
_HEAD = struct.Struct(">4sH16s")
_DTYPES = frozenset({"<i8", "<f8", "|u1"})
_HINT = "an older checkpoint or the log is used instead"


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Where some rows of an array are: in the chunks ``chunk`` … ``chunk + pieces - 1`` of the checkpoint's writer."""

    rows: int
    chunk: int
    pieces: int
    digest: str

    @property
    def chunks(self) -> range:
        """The numbers of its chunks."""
        return range(self.chunk, self.chunk + self.pieces)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array as a manifest has it."""

    dtype: str
    shape: tuple[int, ...]
    shuffled: bool
    blocks: tuple[StoredBlock, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete checkpoint: which offset it covers everything below of, plain values, and arrays by component and name."""

    next_offset: int
    values: Mapping[str, Any]
    arrays: Mapping[str, Mapping[str, StoredArray]]

    @property
    def ledger(self) -> Mapping[str, Mapping[str, int]]:
        """The books, per pipeline."""
        found: Mapping[str, Mapping[str, int]] = self.values.get("ledger", {})
        return found

    def blocks(self) -> Iterator[StoredBlock]:
        """Yield every block."""
        for arrays in self.arrays.values():
            for stored in arrays.values():
                yield from stored.blocks

    def chunks(self) -> set[int]:
        """Return the numbers of all chunks that it needs."""
        return {n for b in self.blocks() for n in b.chunks}


def pack_manifest(m: Manifest) -> bytes:
    """Return a manifest as bytes."""
    components = {
        name: {n: [a.dtype, a.shape, a.shuffled, [astuple(b) for b in a.blocks]] for n, a in arrays.items()}
        for name, arrays in m.arrays.items()
    }
    text = json.dumps([m.next_offset, m.values, components], separators=(",", ":")).encode()
    body = bytes(cramjam.zstd.compress(text, level=1))
    return _HEAD.pack(_MAGIC, FORMAT, hashlib.blake2b(body, digest_size=16).digest()) + body


def unpack_manifest(data: bytes) -> Manifest:
    """Return the manifest that `pack_manifest` wrote.

    Raises:
        CheckpointError: it is damaged, or of another version's format.
    """
    if len(data) < _HEAD.size:
        raise CheckpointError("a manifest is too short", hint=_HINT)
    magic, version, mark = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != FORMAT:
        found = version if magic == _MAGIC else "unknown"
        raise CheckpointError(f"a manifest's format is {found}, this version reads {FORMAT}", hint=_HINT)
    body = data[_HEAD.size :]
    if hashlib.blake2b(body, digest_size=16).digest() != mark:
        raise CheckpointError("a manifest is damaged: its digest differs", hint=_HINT)
    next_offset, values, components = json.loads(bytes(cramjam.zstd.decompress(body)))
    arrays = {
        name: {
            n: StoredArray(dtype, tuple(shape), shuffled, tuple(StoredBlock(*b) for b in blocks))
            for n, (dtype, shape, shuffled, blocks) in stored.items()
        }
        for name, stored in components.items()
    }
    return Manifest(next_offset, values, arrays)


def pack_block(block: NDArray[Any], shuffled: bool) -> bytes:
    """Return a block of an array, compressed."""
    flat = np.ascontiguousarray(block)
    if shuffled and flat.size:
        columns = np.ascontiguousarray(flat.reshape(len(flat), -1).T)
        flat = np.ascontiguousarray(columns.reshape(-1).view(np.uint8).reshape(-1, flat.itemsize).T)
    data: Any = flat.reshape(-1).view(np.uint8)
    return bytes(cramjam.zstd.compress(data, level=1))


def unpack_block(data: bytes, out: NDArray[Any], shuffled: bool) -> None:
    """Fill ``out`` (contiguous) with the block that `pack_block` was given.

    Raises:
        CheckpointError: the bytes are damaged, or are another number of rows.
    """
    flat = out.reshape(-1).view(np.uint8)
    target: Any = np.empty_like(flat) if shuffled else flat
    try:
        n = cramjam.zstd.decompress_into(data, target) if len(target) else len(bytes(cramjam.zstd.decompress(data)))
    except cramjam.DecompressionError as e:
        raise CheckpointError(f"a block of a checkpoint is damaged: {e}", hint=_HINT) from e
    if n != len(target):
        raise CheckpointError(f"a block of a checkpoint has {n} bytes, not {len(target)}", hint=_HINT)
    if shuffled and out.size:
        columns = np.ascontiguousarray(target.reshape(out.itemsize, -1).T).reshape(-1).view(out.dtype)
        out.reshape(len(out), -1)[:] = columns.reshape(-1, len(out)).T


def digest(pieces: Iterable[bytes]) -> str:
    """Return the digest of a block as it is stored."""
    h = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        h.update(piece)
    return h.hexdigest()


def empty_array(stored: StoredArray) -> NDArray[Any]:
    """Return an array for the blocks of a stored one.

    Raises:
        CheckpointError: its shape, type and blocks do not go together.
    """
    if stored.dtype not in _DTYPES or sum(b.rows for b in stored.blocks) != stored.shape[0]:
        raise CheckpointError("an array of a checkpoint does not have the rows it should", hint=_HINT)
    return np.empty(stored.shape, np.dtype(stored.dtype))


def marks(parts: Blocks, seed: int) -> NDArray[np.uint64]:
    """Return 64 bits for each block, uint64[n], that differ (but for a chance of 2⁻⁶⁴) where the contents differ.

    ``seed`` is 64 random bits.
    """
    flat = np.ascontiguousarray(parts.array).reshape(-1).view(np.uint8)
    return hash_blocks(flat, parts.bounds * (parts.array.itemsize * prod(parts.array.shape[1:])), seed)
