"""Which offsets of a partition may be committed: the contiguous finished prefix of what was delivered."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Delivery:
    end: int
    finished: bool = False


class FinishedPrefix:
    """Follows the deliveries of one partition, which arrive in offset order and finish in any order.

    A delivery covers every offset from the previous one's end to its own (compaction gaps, control batches and aborted
    transactions in between included), so the committable position is the end of the last delivery before the first
    unfinished one. Kafka's convention: a position is the next offset to read; ``position`` is where the finished
    prefix ends, ``delivered`` where the deliveries do.
    """

    __slots__ = ("_queue", "_unfinished", "delivered", "position")

    def __init__(self, position: int) -> None:
        """Start where reading starts."""
        self.position = position
        self.delivered = position
        self._queue: deque[_Delivery] = deque()
        self._unfinished: dict[Hashable, _Delivery] = {}

    def deliver(self, token: Hashable, end: int) -> None:
        """Note a delivery that covers everything before ``end``; ``token`` names it until it is finished."""
        entry = _Delivery(end)
        self.delivered = end
        self._queue.append(entry)
        self._unfinished[token] = entry

    def finish(self, token: Hashable) -> bool:
        """Note that a delivery is done with; return whether it was known and unfinished."""
        entry = self._unfinished.pop(token, None)
        if entry is None:
            return False
        entry.finished = True
        while self._queue and self._queue[0].finished:
            self.position = self._queue.popleft().end
        return True

    def __contains__(self, token: Hashable) -> bool:
        """Return whether a delivery is known and unfinished."""
        return token in self._unfinished

    def __len__(self) -> int:
        """Return how many deliveries are unfinished."""
        return len(self._unfinished)
