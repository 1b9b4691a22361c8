"""Rekeying: copies and announcements are a function of the log, whatever the batches."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.records import EventColumns
from fluvial.schemas.columns import longs, spans_from_strings, string_lists
from fluvial.stream_apps import layout as k
from fluvial.stream_apps.aggregation import StageBatch
from fluvial.stream_apps.rekeying import EventRekeyer, Rekeyed
from fluvial.stream_apps.shipped import POSTS_BY_HASHTAG
from support.engine import to_list

RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "tick", "keyed"]),
        st.integers(0, 60_000),
        st.lists(st.sampled_from("abc"), max_size=4),
    ),
    max_size=30,
)


def batch(records: Sequence[tuple[str, int, list[str]]], first: int) -> StageBatch:
    n = len(records)
    kinds = {"event": k.EVENT, "tick": k.PARTITION_TICK, "keyed": k.KEYED_TICK}
    tags = string_lists([tags if kind == "event" else [] for kind, _, tags in records])
    columns = {f: spans_from_strings([f] * n) for f in ("network", "author_id", "post_id")}
    columns |= {"event_time": longs([t for _, t, _ in records]), "hashtags": tags}
    kind = np.array([kinds[r[0]] for r in records], np.uint8)
    tick = np.array([t if kd != "event" else 0 for kd, t, _ in records], np.int64)
    return StageBatch(
        kind,
        np.arange(first, first + n),
        tick,
        spans_from_strings(["k"] * n),
        np.full(n, -1),
        EventColumns(columns, kind == 0, ()),
    )


def flat(out: Rekeyed) -> list[tuple[str, Any]]:
    hashtags, offsets, index = (to_list(out.columns[f]) for f in ("hashtag", "upstream_offset", "upstream_index"))
    made: list[tuple[str, Any]] = []
    announced = list(zip(out.position.tolist(), out.instant.tolist(), strict=True))
    for j in range(out.records + 1):
        made += [("tick", t) for p, t in announced if p == j]
        if j < out.records:
            made.append(("record", (hashtags[j], offsets[j], index[j])))
    return made


def expected(records: Sequence[tuple[str, int, list[str]]]) -> list[tuple[str, Any]]:
    made: list[tuple[str, Any]] = []
    time, step = None, POSTS_BY_HASHTAG.announce_ms
    for offset, (kind, t, tags) in enumerate(records):
        if kind in ("event", "tick") and (time is None or t > time):
            if kind == "tick":
                made.append(("tick", t))
            elif time is None or t // step > time // step:
                made.append(("tick", t // step * step))
            time = t
        if kind == "event":
            made += [("record", (tag, offset, i)) for i, tag in enumerate(dict.fromkeys(tags))]
    return made


@settings(deadline=None)
@given(RECORDS, st.lists(st.integers(0, 30), max_size=5))
def test_copies_and_announcements_do_not_depend_on_batches(
    records: list[tuple[str, int, list[str]]], cuts: list[int]
) -> None:
    edges = sorted({0, len(records), *(c for c in cuts if c < len(records))})
    rekeyer, made = EventRekeyer(POSTS_BY_HASHTAG, 2), list[tuple[str, Any]]()
    for a, b in pairwise(edges):
        made += flat(rekeyer.process(batch(records[a:b], a), "event_time"))
        state = rekeyer.state()
        rekeyer = EventRekeyer(POSTS_BY_HASHTAG, 2)
        rekeyer.restore(state)
    assert made == expected(records)
