"""A feed that runs for weeks: gathers, publishes, and only then writes down how far it is."""

import asyncio
import logging
import random
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

from fluvial.errors import FluvialError
from fluvial.producers.feeds.cursors import Cursors
from fluvial.producers.feeds.posts import Found
from fluvial.producers.feeds.sources import FeedBrokenError, Jetstream, Source
from fluvial.producers.gateway.intake import Checked, TopicIntake
from fluvial.transport.publisher import Publisher

log = logging.getLogger(__name__)

BATCH_POSTS = 500
BATCH_SECONDS = 1.0
REMEMBERED = 50_000
RETRY_SECONDS = (0.5, 60.0)
# More than this between where the feed was left and what it goes on with: some of it is gone.
GAP_US = 60_000_000


class Feeder:
    """Runs one source into the topics of posts and deletions.

    A cursor is kept only after Kafka has acknowledged everything before it; what comes again after a restart is recognised
    here while it is remembered, and downstream by its post_id. ``counts``: post, deletion, other, unreadable, rejected,
    repeated, reconnected, gaps.
    """

    def __init__(
        self, source: Source, posts: TopicIntake, deletions: TopicIntake, publisher: Publisher, cursors: Cursors,
        *, retry_seconds: tuple[float, float] = RETRY_SECONDS,
    ) -> None:  # fmt: skip
        self._source = source
        self._posts = posts
        self._deletions = deletions
        self._publisher = publisher
        self._cursors = cursors
        self._retry_seconds = retry_seconds
        self._recent: OrderedDict[str, None] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event, report: Callable[[Counter[str]], None] = lambda _: None) -> None:
        """Feed until ``stop`` is set, or the source ends.

        Raises:
            PublishError: Kafka did not acknowledge; run it again, nothing is lost.
        """
        cursor = await self._cursors.read(self._source.label)
        delay, longest = self._retry_seconds
        while not stop.is_set():
            before = cursor
            try:
                async for batch in self._batches(cursor, stop):
                    if cursor is not None and before == cursor:
                        self._look_for_gap(cursor, batch)
                    cursor = await self._publish(batch, cursor)
                    report(self.counts)
                    delay = self._retry_seconds[0]
                if not self._source.endless or stop.is_set():
                    return
            except FeedBrokenError as e:
                self.counts["reconnected"] += 1
                log.warning("%s; connecting again", e.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay * random.uniform(0.5, 1.0))  # noqa: S311 – jitter
            delay = min(longest, 2 * delay)

    async def _batches(self, cursor: str | None, stop: asyncio.Event) -> AsyncIterator[list[Found]]:
        """Yield what was found, in batches by number and time; what was gathered before a break is yielded first."""
        batch: list[Found] = []
        stopping = asyncio.ensure_future(stop.wait())
        async with aclosing(self._source.found(cursor)) as found:  # type: ignore[type-var]
            following = asyncio.ensure_future(anext(found))
            until = time.monotonic() + BATCH_SECONDS
            try:
                while True:
                    left = max(0.0, until - time.monotonic()) if batch else None
                    await asyncio.wait({following, stopping}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    if following.done():
                        try:
                            batch.append(following.result())
                        except StopAsyncIteration:
                            break
                        except FluvialError:
                            if batch:
                                yield batch
                            raise
                        following = asyncio.ensure_future(anext(found))
                    if stopping.done():
                        break
                    if batch and (len(batch) >= BATCH_POSTS or time.monotonic() >= until):
                        yield batch
                        batch, until = [], time.monotonic() + BATCH_SECONDS
                if batch:
                    yield batch
            finally:
                stopping.cancel()
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def _publish(self, batch: list[Found], cursor: str | None) -> str | None:
        now_ms = time.time_ns() // 1_000_000
        for kind, intake in (("post", self._posts), ("deletion", self._deletions)):
            fresh = [f for f in batch if f.kind == kind and self._is_new(f)]
            if fresh:
                checked = await asyncio.to_thread(intake.from_objects, [dict(f.fields) for f in fresh], now_ms)
                self._note(kind, checked)
                await (await self._publisher.publish(checked.topic, checked.keys, checked.values))
        for f in batch:
            if f.kind in ("other", "unreadable"):
                self.counts[f.kind] += 1
                if f.reason:
                    self.reasons[f.reason] += 1
        after = next((f.cursor for f in reversed(batch) if f.cursor is not None), cursor)
        if after is not None and after != cursor:
            await self._cursors.write(self._source.label, after)
        return after

    def _note(self, kind: str, checked: Checked) -> None:
        self.counts[kind] += checked.accepted
        self.counts["rejected"] += len(checked.rejected)
        self.reasons.update(r.reason for r in checked.rejected)

    def _is_new(self, found: Found) -> bool:
        name = f"{found.kind} {found.fields.get('post_id')}"
        if name in self._recent:
            self._recent.move_to_end(name)
            self.counts["repeated"] += 1
            return False
        self._recent[name] = None
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return True

    def _look_for_gap(self, cursor: str, batch: list[Found]) -> None:
        first = next((f.cursor for f in batch if f.cursor is not None), None)
        if first is None or not isinstance(self._source, Jetstream):
            return
        if int(first) > int(cursor) + GAP_US:
            self.counts["gaps"] += 1
            seconds = (int(first) - int(cursor)) / 1e6
            log.warning("%s goes on %.0f s after where it was left: that much is missing", self._source.label, seconds)
