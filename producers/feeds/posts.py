"""What each network's messages mean: pure functions from a message to what happened."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, Literal

Kind = Literal["post", "deletion", "other", "unreadable"]
# A hashtag in a text: "#" and letters, digits, underscores, not only digits (Mastodon's rule, as in most networks).
HASHTAG = re.compile(r"(?:^|[^\w/&])#(\w*[^\W\d]\w*)")
OLDEST = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Found:
    """One message of a feed: what it was, its fields (of SocialPost or PostDeletion), and where the feed is after it."""

    kind: Kind
    cursor: str | None
    fields: Mapping[str, Any]
    reason: str = ""


def jetstream(message: Any) -> Found:
    """Return what a message of Bluesky's Jetstream (v1) says; its cursor is ``time_us``."""
    try:
        cursor = str(int(message["time_us"]))
        commit = message.get("commit")
        if message.get("kind") != "commit" or commit["collection"] != "app.bsky.feed.post":
            return Found("other", cursor, {})
        seen = datetime.fromtimestamp(int(cursor) / 1e6, UTC)
        author = message["did"]
        known = {"post_id": f"{author}/{commit['rkey']}", "author_id": author, "network": "bluesky"}
        if commit["operation"] == "delete":
            return Found("deletion", cursor, {**known, "event_time": _ms(seen)})
        if commit["operation"] != "create":
            return Found("other", cursor, {})
        record = commit["record"]
        facets = [f for facet in record.get("facets") or () for f in facet.get("features") or ()]
        tags = [f["tag"] for f in facets if f.get("$type") == "app.bsky.richtext.facet#tag"]
        languages = record.get("langs") or [None]
        post = {
            **known, "event_time": _ms(_within(record.get("createdAt"), seen)), "text": record.get("text", ""),
            "language": languages[0], "hashtags": _unique([*tags, *(record.get("tags") or ())]),
            "reply_to": _at_name(((record.get("reply") or {}).get("parent") or {}).get("uri")),
        }  # fmt: skip
        return Found("post", cursor, post)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        return Found("unreadable", None, {}, f"{type(e).__name__}: {e}")


def mastodon(event: str, data: Any, cursor: str | None, host: str) -> Found:
    """Return what an event of Mastodon's streaming API says: ``update`` is a post, ``delete`` names one by its id."""
    try:
        if event == "delete":
            now = _ms(datetime.now(UTC))
            fields = {"post_id": f"{host}/{data}", "author_id": "unknown", "network": "mastodon", "event_time": now}
            return Found("deletion", cursor, fields)
        if event != "update":
            return Found("other", cursor, {})
        reply = data.get("in_reply_to_id")
        post = {
            "post_id": f"{host}/{data['id']}", "author_id": data["account"]["acct"], "network": "mastodon",
            "event_time": data["created_at"], "text": plain_text(data["content"]), "language": data.get("language"),
            "hashtags": _unique([t["name"] for t in data.get("tags") or ()]),
            "reply_to": None if reply is None else f"{host}/{reply}",
        }  # fmt: skip
        return Found("post", cursor, post)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        return Found("unreadable", cursor, {}, f"{type(e).__name__}: {e}")


def wikimedia(data: Any, cursor: str | None) -> Found:
    """Return what an event of Wikimedia's ``recentchange`` stream says: an edit's comment is a post, its page the hashtag."""
    try:
        if data.get("meta", {}).get("domain") == "canary" or data.get("type") not in ("edit", "new"):
            return Found("other", cursor, {})
        post = {
            "post_id": data["meta"]["id"], "author_id": data["user"], "network": data["wiki"],
            "event_time": data["meta"]["dt"], "text": data.get("comment", ""), "language": None,
            "hashtags": _unique([data["title"], *HASHTAG.findall(data.get("comment", ""))]), "reply_to": None,
        }  # fmt: skip
        return Found("post", cursor, post)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        return Found("unreadable", cursor, {}, f"{type(e).__name__}: {e}")


def plain(data: Any, cursor: str | None) -> Found:
    """Return a line that has a SocialPost's own fields; without ``hashtags`` they are taken from the text."""
    if not isinstance(data, dict):
        return Found("unreadable", cursor, {}, "not a JSON object")
    text = data.get("text")
    if "hashtags" not in data and isinstance(text, str):
        data = {**data, "hashtags": _unique(HASHTAG.findall(text))}
    return Found("post", cursor, data)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("br", "p") and self.parts:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def plain_text(content: str) -> str:
    """Return the text of a post in HTML: paragraphs and breaks become line breaks."""
    parser = _Text()
    parser.feed(content)
    parser.close()
    return html.unescape("".join(parser.parts)).strip()


def _within(created: Any, seen: datetime) -> datetime:
    """Return when a post says it was made, if that is before it was seen and no longer ago than a day; else when it was seen."""
    try:
        at = datetime.fromisoformat(created)
    except (TypeError, ValueError):
        return seen
    return at if at.tzinfo is not None and seen - OLDEST <= at <= seen else seen


def _at_name(uri: Any) -> str | None:
    """Return did/rkey of an at:// address of a post."""
    parts = uri.removeprefix("at://").split("/") if isinstance(uri, str) else []
    return f"{parts[0]}/{parts[2]}" if len(parts) == 3 else None


def _unique(tags: list[Any]) -> list[str]:
    return list(dict.fromkeys(str(t) for t in tags if t))


def _ms(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
