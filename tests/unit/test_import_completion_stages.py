"""A completed import of posts, through the processors' own rekeying stages: the partition ticks close them all."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.producers.completion import NONE, completion
from fluvial.records import Column, EventColumns, Longs, take
from fluvial.schemas.columns import longs, repeated, spans_from_strings, string_lists
from fluvial.schemas.declarations import HOUR_MS, MINUTE_MS, Pipeline, Rekey
from fluvial.stream_apps import layout
from fluvial.stream_apps.aggregation import Aggregation, StageBatch
from fluvial.stream_apps.rekeying import EventRekeyer, Rekeyed, ResultRekeyer
from fluvial.stream_apps.shipped import (
    AUTHOR_SESSIONS,
    DECLARATION,
    HASHTAG_COUNTS,
    HASHTAG_MINUTE,
    NETWORK_MINUTE,
    POSTS_BY_HASHTAG,
    POSTS_BY_NETWORK,
    TRENDING_HOUR,
)
from fluvial.transport.murmur2 import partition_for

PARTITIONS = 3
POSTS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(-3 * HOUR_MS, 3 * HOUR_MS), st.lists(st.sampled_from("xyz"))),
    min_size=1,
    max_size=10,
)
Post = tuple[str, int, list[str]]


def topic_of(posts: Sequence[Post], number: int, tick: int | None) -> StageBatch:
    """Return one partition of social.posts: its posts, then its tick."""
    rows = [*posts, ("", 0, [])]
    columns: dict[str, Column] = {
        "post_id": spans_from_strings([f"{number}-{i}" for i in range(len(rows))]),
        "author_id": spans_from_strings([author for author, _, _ in rows]),
        "network": repeated("n", len(rows)),
        "event_time": longs([t for _, t, _ in rows]),
        "hashtags": string_lists([tags for _, _, tags in rows]),
    }
    kinds = [layout.EVENT] * len(posts) + [layout.PARTITION_TICK]
    whole = _batch(columns, kinds, [0] * len(posts) + [tick or 0], [-1] * len(rows))
    return whole if tick is not None else _head(whole, len(posts))


def rekeyed_topic(parts: Sequence[Rekeyed]) -> list[StageBatch]:
    """Return a rekeyed topic of one partition: what each upstream partition has sent, announcements in their places."""
    batches = []
    for part in parts:
        order: list[tuple[int, int, int]] = []
        announcements = list(zip(part.position.tolist(), part.instant.tolist(), strict=True))
        for row in range(part.records + 1):
            order += [(layout.PARTITION_TICK, row, instant) for position, instant in announcements if position == row]
            if row < part.records:
                order.append((layout.EVENT, row, 0))
        if order and part.records:
            rows = np.array([min(row, part.records - 1) for _, row, _ in order])
            columns = {name: take(c, rows) for name, c in part.columns.items()}
        else:
            columns = {name: _blank(c, len(order)) for name, c in part.columns.items()}
        upstream = [part.partition if kind == layout.PARTITION_TICK else -1 for kind, _, _ in order]
        batches.append(_batch(columns, [k for k, _, _ in order], [t for _, _, t in order], upstream))
    return batches


def open_after(posts: Sequence[Post], earlier: int) -> dict[str, int]:
    """Return how many windows of each stage are open after an import whose ticks came ``earlier`` ms too early."""
    authors = spans_from_strings([a for a, _, _ in posts])
    at = partition_for(authors, PARTITIONS)
    latest: dict[str, int] = {}
    for author, t, _ in posts:
        latest[author] = max(t, latest.get(author, t))
    ticks = completion(
        spans_from_strings(list(latest)),
        np.array(list(latest.values())),
        "social.posts",
        DECLARATION.pipelines,
        PARTITIONS,
    ).partition_instant
    topics = []
    for p in range(PARTITIONS):
        own = [post for post, partition in zip(posts, at, strict=True) if partition == p]
        topics.append(topic_of(own, p, None if ticks[p] == NONE else int(ticks[p]) - earlier))
    left = {}
    sessions = [Aggregation(AUTHOR_SESSIONS, partition=p) for p in range(PARTITIONS)]
    for stage, batch in zip(sessions, topics, strict=True):
        stage.process(batch)
    left["author_sessions"] = sum(s.windows.open_windows for s in sessions)
    left["network_minute"] = _rekeyed_stage(NETWORK_MINUTE, POSTS_BY_NETWORK, topics)[0].windows.open_windows
    minutes, forwarded = _rekeyed_stage(HASHTAG_MINUTE, POSTS_BY_HASHTAG, topics)
    left["hashtag_minute"] = minutes.windows.open_windows
    trending = Aggregation(TRENDING_HOUR, partition=0, upstream_partitions=1)
    for batch in rekeyed_topic(forwarded):
        trending.process(batch)
    left["trending_hour"] = trending.windows.open_windows
    return left


def _rekeyed_stage(pipeline: Pipeline, rekey: Rekey, topics: Sequence[StageBatch]) -> tuple[Aggregation, list[Rekeyed]]:
    sent = [EventRekeyer(rekey, p).process(batch, "event_time") for p, batch in enumerate(topics)]
    stage = Aggregation(pipeline, partition=0, upstream_partitions=PARTITIONS)
    forward = ResultRekeyer(HASHTAG_COUNTS, HASHTAG_MINUTE, 0) if pipeline is HASHTAG_MINUTE else None
    forwarded = []
    for batch in rekeyed_topic(sent):
        rows, _ = stage.process(batch)
        if forward is not None:
            forwarded.append(forward.process(rows, stage.last_keys, stage.windows.closed_through))
    return stage, forwarded


@settings(max_examples=60)
@given(POSTS)
def test_no_window_of_any_stage_is_open_after_the_ticks(posts: list[Post]) -> None:
    assert open_after(posts, 0) == dict.fromkeys(
        ["author_sessions", "network_minute", "hashtag_minute", "trending_hour"], 0
    )


@pytest.mark.parametrize(
    ("minute", "left_open"),
    [(30, {"author_sessions", "trending_hour"}), (59, {"author_sessions", "network_minute", "hashtag_minute"})],
)
def test_a_millisecond_earlier_they_would_not_all_close(minute: int, left_open: set[str]) -> None:
    left = open_after([("a", minute * MINUTE_MS, ["x"])], 1)
    assert {name for name, windows in left.items() if windows} == left_open


def _batch(columns: dict[str, Column], kinds: list[int], ticks: list[int], upstream: list[int]) -> StageBatch:
    kind = np.array(kinds, np.uint8)
    n = len(kind)
    events = EventColumns(columns, kind == layout.EVENT, ())
    authors = repeated(None, n)
    return StageBatch(kind, np.arange(n), np.array(ticks, np.int64), authors, np.array(upstream, np.int64), events)


def _head(batch: StageBatch, n: int) -> StageBatch:
    rows = np.arange(n)
    columns = {name: take(c, rows) for name, c in batch.events.columns.items()}
    events = EventColumns(columns, batch.events.ok[:n], ())
    return StageBatch(
        batch.kind[:n], batch.offset[:n], batch.tick[:n], batch.record_key.take(rows), batch.upstream[:n], events
    )


def _blank(column: Column, n: int) -> Column:
    if isinstance(column, Longs):
        return longs(np.zeros(n, np.int64))
    return repeated("", n)
