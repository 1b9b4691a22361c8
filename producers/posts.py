"""Simulated posts: authors with sessions, networks, languages, and hashtags by Zipf's law that trend in bursts."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fluvial.producers.random_blocks import BLOCK_EVENTS, POST_BLOCKS, TEXT_TABLE, U64, generator, numbered, scrambled
from fluvial.records import F64, I64, Column, Longs, Spans, StringLists
from fluvial.schemas.columns import spans_from_strings

INTERVAL_SECONDS = 600.0
NETWORKS, NETWORK_SHARES = ("mastodon", "bluesky", "lemmy", "pixelfed"), (0.45, 0.35, 0.12, 0.08)
LANGUAGES, LANGUAGE_SHARES = ("en", "de", "ja", "pt-BR", "fr", None), (0.5, 0.14, 0.12, 0.1, 0.06, 0.08)
HASHTAGS = 2_000
ZIPF_EXPONENT = 1.1
TAG_COUNT_SHARES = (0.35, 0.35, 0.18, 0.09, 0.03)
TRENDING_SHARE = 0.3
# A burst lives for three slots: it rises, peaks and decays.
BURST_SLOT_SECONDS, BURST_SHARES = 600.0, (0.3, 0.5, 0.2)
SESSION_SLOT_SECONDS, ACTIVE_SHARE = 1_200.0, 0.05
REPLY_SHARE = 0.2
_SUBJECTS = ("rain", "the bus", "my garden", "this city", "the match", "coffee", "the news", "a stray cat", "winter")
_VERBS = ("surprises", "delights", "annoys", "inspires", "tires", "amuses", "puzzles", "haunts")
_OBJECTS = ("me", "everyone", "the neighbours", "nobody", "half of the town", "my sister", "the whole team")
_ENDINGS = ("again", "today", "as always", "for once", "before breakfast", "and how", "since Monday")
_NATURE = ("weather", "garden", "climate", "cats")
_TOPICS = (
    *_NATURE,
    "football",
    "music",
    "coding",
    "travel",
    "books",
    "art",
    "food",
    "science",
    "trains",
    "games",
    "news",
)


class Posts:
    """The posts of ``keys`` authors, each about one in `INTERVAL_SECONDS`, or ``per_second`` of all together.

    The same seed gives the same authors and posts.
    """

    def __init__(self, seed: int, keys: int, start_ms: int, per_second: float | None = None) -> None:
        self._seed = seed
        self._start_ms = start_ms
        self._keys = keys
        self._per_second = per_second or keys / INTERVAL_SECONDS
        self._active = max(1, round(keys * ACTIVE_SHARE))
        names = numbered("author-", np.arange(keys), max(4, len(str(keys - 1))))
        self._authors = Spans(names.reshape(-1), np.arange(keys) * names.shape[1], np.full(keys, names.shape[1]))
        self._networks = spans_from_strings(NETWORKS)
        self._languages = spans_from_strings(LANGUAGES)
        self._tags = spans_from_strings([_hashtag(i) for i in range(HASHTAGS)])
        self._hash_tags = pa.array(["#" + _hashtag(i) for i in range(HASHTAGS)], pa.string())
        weights = 1.0 / np.arange(1, HASHTAGS + 1) ** ZIPF_EXPONENT
        self._popularity = np.cumsum(weights) / weights.sum()
        self._sentences = pa.array(_sentences(seed), pa.string())
        # Two runs are two sets of posts, also with one seed.
        self._id_prefix = f"{seed:x}-{start_ms:x}-"

    @property
    def per_second(self) -> float:
        """Posts per second of event time."""
        return self._per_second

    def block(self, number: int) -> Mapping[str, Column]:
        """Return the posts of a block, in the order of their event times."""
        draw = generator(self._seed, POST_BLOCKS, number)
        index = number * BLOCK_EVENTS + np.arange(BLOCK_EVENTS)
        second = index / self._per_second
        every = np.ones(BLOCK_EVENTS, np.bool_)
        author = self._author(draw, second)
        # Most authors write in one language and on one network.
        network = _choice(draw, NETWORK_SHARES, scrambled(self._seed, author, np.full_like(author, 1)))
        language = _choice(draw, LANGUAGE_SHARES, scrambled(self._seed, author, np.full_like(author, 2)))
        offsets, tags = self._hashtags(draw, second)
        return {
            "post_id": self._ids(index),
            "author_id": self._authors.take(author),
            "network": self._networks.take(network),
            "event_time": Longs(self._start_ms + np.floor(second * 1000.0).astype(np.int64), every),
            "text": self._text(draw, offsets, tags),
            "language": self._languages.take(language),
            "hashtags": StringLists(offsets, self._tags.take(tags)),
            "reply_to": self._reply(draw, index),
        }

    def _author(self, draw: np.random.Generator, second: F64) -> I64:
        """Draw from the few who are active now, some of them more than others; who they are changes slot by slot."""
        rank = (self._active * draw.random(BLOCK_EVENTS) ** 2).astype(np.int64)
        # Each rank's slots begin at another moment, so that sessions do not all begin together.
        shift = scrambled(self._seed, rank) / 2.0**64
        slot = np.floor(second / SESSION_SLOT_SECONDS + shift).astype(np.int64)
        return (scrambled(self._seed, slot, rank) % np.uint64(self._keys)).astype(np.int64)

    def _hashtags(self, draw: np.random.Generator, second: F64) -> tuple[I64, I64]:
        count = draw.choice(len(TAG_COUNT_SHARES), BLOCK_EVENTS, p=TAG_COUNT_SHARES)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)]).astype(np.int64)
        n = int(offsets[-1])
        tags = np.searchsorted(self._popularity, draw.random(n), side="right")
        age = draw.choice(len(BURST_SHARES), n, p=BURST_SHARES)
        slot = np.floor(np.repeat(second, count) / BURST_SLOT_SECONDS).astype(np.int64)
        trend = scrambled(self._seed, slot - age, np.full(n, 3)) % np.uint64(HASHTAGS)
        return offsets, np.where(
            draw.random(n) < TRENDING_SHARE, trend.astype(np.int64), np.minimum(tags, HASHTAGS - 1)
        )

    def _text(self, draw: np.random.Generator, offsets: I64, tags: I64) -> Spans:
        sentence = self._sentences.take(pa.array(draw.integers(0, len(self._sentences), BLOCK_EVENTS)))
        words = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), self._hash_tags.take(pa.array(tags)))
        text = pc.binary_join_element_wise(sentence, pc.binary_join(words, " "), " ")
        return spans_from_strings(pc.utf8_rtrim_whitespace(text))

    def _ids(self, index: I64) -> Spans:
        names = numbered(self._id_prefix, index, 12)
        n, width = names.shape
        return Spans(names.reshape(-1), np.arange(n) * width, np.full(n, width, np.int64))

    def _reply(self, draw: np.random.Generator, index: I64) -> Spans:
        """Some answer one of the thousand posts before them."""
        back = draw.integers(1, 1_001, BLOCK_EVENTS)
        replies = (draw.random(BLOCK_EVENTS) < REPLY_SHARE) & (index >= back)
        ids = self._ids(np.maximum(index - back, 0))
        return Spans(ids.buffer, np.where(replies, ids.start, 0), np.where(replies, ids.length, -1))


def _choice(draw: np.random.Generator, shares: tuple[float, ...], own: U64) -> I64:
    """Return each author's own choice, in one of ten cases another one."""
    now = np.where(draw.random(len(own)) < 0.1, draw.random(len(own)), own / 2.0**64)
    return np.minimum(np.searchsorted(np.cumsum(shares), now, side="right"), len(shares) - 1)


def _hashtag(number: int) -> str:
    generation, topic = divmod(number, len(_TOPICS))
    return _TOPICS[topic] + (str(generation) if generation else "")


def _sentences(seed: int) -> list[str]:
    draw = generator(seed, TEXT_TABLE)
    parts = [draw.integers(0, len(words), 4_096) for words in (_SUBJECTS, _VERBS, _OBJECTS, _ENDINGS)]
    return [
        f"{_SUBJECTS[s].capitalize()} {_VERBS[v]} {_OBJECTS[o]} {_ENDINGS[e]}"
        for s, v, o, e in zip(*(p.tolist() for p in parts), strict=True)
    ]
