"""An endless stream of simulated events as a function of their number, and the order in which they arrive."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fluvial.producers.random_blocks import ARRIVAL_BLOCKS, BLOCK_EVENTS, generator
from fluvial.records import F64, I64, Column, DoubleLists, Doubles, Longs, Spans, StringLists, take
from fluvial.schemas.columns import concat_spans

# A repeat is sent again this many seconds after its first arrival.
REPEAT_FROM, REPEAT_TO = 1.0, 5.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Events in the order of their arrival; ``second`` (since the start) is when each arrives."""

    columns: Mapping[str, Column]
    second: F64

    def __len__(self) -> int:
        return len(self.second)


class EventStream(Protocol):
    """A simulation: what happens, in the order in which it happens."""

    @property
    def per_second(self) -> float:
        """How many events happen in a second of event time."""
        ...

    def block(self, number: int) -> Mapping[str, Column]:
        """Return events number · `BLOCK_EVENTS` and on."""
        ...


def arrivals(stream: EventStream, seed: int, disorder_seconds: float, duplicates: float) -> Iterator[Arrivals]:
    """Yield the events of a stream without end, in the order of their arrival.

    Each is on its way for up to ``disorder_seconds`` (most of them for far less: the cube of a uniform draw). A share
    ``duplicates`` of them arrives a second time, some seconds later. Neither the chunks in which they are yielded nor
    anything else has an influence on what arrives and in which order.
    """
    chunk = _blocks_per_chunk(stream, disorder_seconds if not duplicates else disorder_seconds + REPEAT_TO)
    waiting: Arrivals | None = None
    first = 0
    while True:
        parts = [] if waiting is None else [waiting]
        for number in range(first, first + chunk):
            parts += _arriving(stream, seed, number, disorder_seconds, duplicates)
        first += chunk
        arriving = _joined(parts)
        # What happens from here on arrives later than this.
        known = first * BLOCK_EVENTS / stream.per_second
        order = np.argsort(arriving.second, kind="stable")
        behind = int(np.searchsorted(arriving.second[order], known, side="left"))
        for a in range(0, behind, BLOCK_EVENTS):
            yield _taken(arriving, order[a : min(a + BLOCK_EVENTS, behind)])
        # Rows that wait stay in the order in which they were made: ties are broken as if all were sorted at once.
        waiting = _compact(_taken(arriving, np.sort(order[behind:]))) if behind < len(order) else None


def _blocks_per_chunk(stream: EventStream, delay_seconds: float) -> int:
    return max(1, int(np.ceil(delay_seconds * stream.per_second / BLOCK_EVENTS)))


def _arriving(
    stream: EventStream, seed: int, number: int, disorder_seconds: float, duplicates: float
) -> Sequence[Arrivals]:
    second = (number * BLOCK_EVENTS + np.arange(BLOCK_EVENTS)) / stream.per_second
    columns = stream.block(number)
    if not disorder_seconds and not duplicates:
        return [Arrivals(columns, second)]
    draws = generator(seed, ARRIVAL_BLOCKS, number).random((3, BLOCK_EVENTS))
    second = second + disorder_seconds * draws[0] ** 3
    once = Arrivals(columns, second)
    again = np.flatnonzero(draws[1] < duplicates)
    if not len(again):
        return [once]
    later = second[again] + REPEAT_FROM + (REPEAT_TO - REPEAT_FROM) * draws[2][again]
    return [once, Arrivals({name: take(c, again) for name, c in columns.items()}, later)]


def _taken(arriving: Arrivals, rows: I64) -> Arrivals:
    return Arrivals({name: take(c, rows) for name, c in arriving.columns.items()}, arriving.second[rows])


def _joined(parts: Sequence[Arrivals]) -> Arrivals:
    if len(parts) == 1:
        return parts[0]
    names = parts[0].columns
    columns = {name: _concat([p.columns[name] for p in parts]) for name in names}
    return Arrivals(columns, np.concatenate([p.second for p in parts]))


def _concat(parts: Sequence[Column]) -> Column:
    first = parts[0]
    if isinstance(first, Spans):
        return concat_spans([p for p in parts if isinstance(p, Spans)])
    if isinstance(first, Doubles):
        own = [p for p in parts if isinstance(p, Doubles)]
        return Doubles(np.concatenate([p.values for p in own]), np.concatenate([p.valid for p in own]))
    if isinstance(first, Longs):
        whole = [p for p in parts if isinstance(p, Longs)]
        return Longs(np.concatenate([p.values for p in whole]), np.concatenate([p.valid for p in whole]))
    assert not isinstance(first, DoubleLists)
    lists = [p for p in parts if isinstance(p, StringLists)]
    counts = np.concatenate([np.diff(p.offsets) for p in lists])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return StringLists(offsets, concat_spans([p.items for p in lists]))


def _compact(waiting: Arrivals) -> Arrivals:
    """Copy the strings that wait out of the buffers of those that have gone; tables of names are small and stay."""
    return Arrivals({name: _compacted(c) for name, c in waiting.columns.items()}, waiting.second)


def _compacted(column: Column) -> Column:
    if isinstance(column, StringLists):
        return StringLists(column.offsets, _gathered(column.items))
    return _gathered(column) if isinstance(column, Spans) else column


def _gathered(spans: Spans) -> Spans:
    width = np.maximum(spans.length, 0)
    if len(spans.buffer) <= 4 * int(width.sum()) + (1 << 20):
        return spans
    end = np.cumsum(width)
    index = np.repeat(spans.start - (end - width), width) + np.arange(int(end[-1]))
    return Spans(spans.buffer[index], end - width, spans.length)
