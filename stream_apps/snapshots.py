"""What a snapshot of a state consists of: copies of arrays, and the places at which they are cut into blocks.

A copy is made while the stream waits, so it has to be quick: memory that was never touched before takes ten times as long
to write as memory that was. A `Room` is touched beforehand, beside the stream.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fluvial.records import I64

BLOCK_BYTES = 128 << 10
_PAGE, _LINE = 4096, 64
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array and the rows at which it is cut: block i is ``array[bounds[i]:bounds[i + 1]]``.

    Cut so that what did not change is in a block of its own that did not change: equal blocks are stored once.
    ``shuffled`` blocks are compressed column by column and byte by byte, which suits tables of small integers.
    """

    array: NDArray[Any]
    bounds: I64
    shuffled: bool

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def block(self, i: int) -> NDArray[Any]:
        """Return block number i, a view."""
        return self.array[self.bounds[i] : self.bounds[i + 1]]


State = dict[str, "NDArray[Any] | Blocks"]


def blocks_of(part: NDArray[Any] | Blocks) -> Blocks:
    """Return an array as blocks of equal numbers of rows (what is cut already, as it is)."""
    if isinstance(part, Blocks):
        return part
    rows = max(1, BLOCK_BYTES // max(1, part.dtype.itemsize * prod(part.shape[1:])))
    bounds = np.append(np.arange(0, len(part), rows), len(part))
    return Blocks(part, bounds, part.dtype == np.int64)


def arrays_of(state: State) -> dict[str, NDArray[Any]]:
    """Return the arrays of a state, whole."""
    return {name: part.array if isinstance(part, Blocks) else part for name, part in state.items()}


class Room:
    """Memory for copies, touched already; what does not fit is taken as usual."""

    def __init__(self, size: int) -> None:
        self._free = np.empty(size, np.uint8)
        self._free[::_PAGE] = 0

    def empty(self, shape: tuple[int, ...], dtype: type[_T]) -> NDArray[_T]:
        """Return an array of any content."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if size > len(self._free):
            return np.empty(shape, dtype)
        taken, self._free = self._free[:size], self._free[-(-size // _LINE) * _LINE :]
        return taken.view(dtype).reshape(shape)

    def copy(self, array: NDArray[_T]) -> NDArray[_T]:
        """Return a copy."""
        out = self.empty(array.shape, array.dtype.type)
        np.copyto(out, array)
        return out
