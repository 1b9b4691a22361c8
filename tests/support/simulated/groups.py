"""Consumer groups: membership, generations, assignments, committed offsets; what a broker's coordinator knows."""

import asyncio
import random
from dataclasses import dataclass, field

from faust.types import TP

from support.simulated.loop import OUTSIDE, VirtualLoop

HEARTBEAT_SECONDS = 3.0
SESSION_SECONDS = 12.0
REBALANCE_SECONDS = 20.0


class NotAMemberError(Exception):
    """The coordinator does not know the member (any more), or another generation of it."""


class FencedError(NotAMemberError):
    """Another process has the static member's instance id now: this one must end."""


@dataclass(slots=True)
class _Member:
    name: str
    instance: str | None
    topics: tuple[str, ...]
    heard: float
    joined: "asyncio.Future[tuple[int, tuple[TP, ...]]] | None" = None
    assigned: tuple[TP, ...] = ()
    generation: int = 0


@dataclass(slots=True)
class Group:
    """One consumer group, under the eager protocol: everybody gives everything back and joins again."""

    loop: VirtualLoop
    rng: random.Random
    partitions: dict[str, int]
    members: dict[str, _Member] = field(default_factory=dict)
    committed: dict[TP, int] = field(default_factory=dict)
    generation: int = 0
    preparing_since: float | None = None
    fenced: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Look after the members once a second."""
        self.loop.call_later(1.0, self._look, context=OUTSIDE)

    def join(
        self, name: str, instance: str | None, topics: tuple[str, ...]
    ) -> "asyncio.Future[tuple[int, tuple[TP, ...]]]":
        """Return a future of the generation and assignment.

        A static member that comes again within its session takes its partitions up without a rebalance.
        """
        if name in self.fenced:
            raise FencedError(name)
        future: asyncio.Future[tuple[int, tuple[TP, ...]]] = self.loop.create_future()
        before = next((m for m in self.members.values() if instance is not None and m.instance == instance), None)
        if before is not None and before.name != name:
            del self.members[before.name]
            self.fenced.add(before.name)
            if before.joined is not None and not before.joined.done():
                before.joined.set_exception(FencedError(before.name))
            member = _Member(name, instance, topics, self.loop.time(), None, before.assigned, before.generation)
            self.members[name] = member
            if self.preparing_since is None:
                future.set_result((member.generation, member.assigned))
                return future
            member.joined = future
        else:
            member = self.members.setdefault(name, _Member(name, instance, topics, 0.0))
            member.joined, member.heard = future, self.loop.time()
            self._prepare()
        self._complete_if_all_joined()
        return future

    def heartbeat(self, name: str, generation: int) -> bool:
        """Note a sign of life; return whether the member must join again.

        Raises:
            NotAMemberError: it was given up meanwhile.
        """
        member = self._known(name, generation)
        member.heard = self.loop.time()
        return self.preparing_since is not None

    def commit(self, name: str, generation: int, offsets: dict[TP, int]) -> None:
        """Store positions.

        Raises:
            NotAMemberError: a zombie's are refused.
        """
        self._known(name, generation)
        self.committed |= offsets

    def leave(self, name: str) -> None:
        """Go on without a member."""
        if self.members.pop(name, None) is not None:
            self._prepare()
            self._complete_if_all_joined()

    def _known(self, name: str, generation: int) -> _Member:
        if name in self.fenced:
            raise FencedError(name)
        member = self.members.get(name)
        if member is None or member.generation != generation:
            raise NotAMemberError(f"{name} of generation {generation}")
        return member

    def _prepare(self) -> None:
        if self.preparing_since is None:
            self.preparing_since = self.loop.time()

    def _complete_if_all_joined(self) -> None:
        if self.preparing_since is not None and all(m.joined for m in self.members.values()):
            self._complete()

    def _look(self) -> None:
        self.loop.call_later(1.0, self._look, context=OUTSIDE)
        now = self.loop.time()
        for m in [m for m in self.members.values() if m.joined is None and now - m.heard > SESSION_SECONDS]:
            del self.members[m.name]
            self._prepare()
        if self.preparing_since is not None and now - self.preparing_since > REBALANCE_SECONDS:
            for m in [m for m in self.members.values() if m.joined is None]:
                del self.members[m.name]
            self._complete()
        else:
            self._complete_if_all_joined()

    def _complete(self) -> None:
        self.preparing_since = None
        self.generation += 1
        order = sorted(self.members)
        self.rng.shuffle(order)
        shares: dict[str, list[TP]] = {name: [] for name in order}
        for topic in sorted({t for m in self.members.values() for t in m.topics}):
            readers = [n for n in order if topic in self.members[n].topics]
            for p in range(self.partitions[topic]):
                shares[readers[p % len(readers)]].append(TP(topic, p))
        for name, tps in shares.items():
            m = self.members[name]
            m.generation, m.assigned, m.heard = self.generation, tuple(sorted(tps)), self.loop.time()
            joined, m.joined = m.joined, None
            if joined is not None and not joined.done():
                joined.set_result((m.generation, m.assigned))
