"""Social feeds against local servers that speak their protocols: breaks, stalls, repeats, and cursors that never lead ahead."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from fluvial.errors import PublishError
from fluvial.producers.feeds import sources
from fluvial.producers.feeds.feeding import Feeder
from fluvial.producers.feeds.posts import jetstream, mastodon, plain, plain_text, wikimedia
from fluvial.producers.feeds.sources import Jetstream, Lines, ServerSentEvents, Source
from fluvial.producers.gateway.intake import TopicIntake
from fluvial.records import Spans
from fluvial.schemas.avro import load_schema
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.sources import SchemaMap
from support.gate import POSTS, HeldPublisher, intake
from support.transport import eventually

SECOND_US = 1_000_000
BEGUN_US = 1_790_000_000 * SECOND_US


def commit(n: int, operation: str = "create", **record: Any) -> dict[str, Any]:
    """Return a message of Jetstream as its documentation shows them; post n is made at second n."""
    whole = {"kind": "commit", "did": f"did:plc:author{n % 3}", "time_us": BEGUN_US + n * SECOND_US}
    body = {"operation": operation, "collection": "app.bsky.feed.post", "rkey": f"post{n}", "rev": "r"}
    if operation == "create":
        body["record"] = {"$type": "app.bsky.feed.post", "text": f"post {n}", "langs": ["en"], **record}  # type: ignore[assignment]
    return {**whole, "commit": body}


def deletions() -> TopicIntake:
    schema = load_schema("fluvial.social.PostDeletion")
    return TopicIntake(
        "social.deletions", schema, key="author_id", event_time="event_time", not_empty=frozenset({"author_id"}),
        encoder=Encoder(schema, 1), decoder=Decoder(schema, SchemaMap({1: schema})), max_ahead_ms=10**15,
    )  # fmt: skip


class Kept:
    """Cursors in memory, which know how many records were acknowledged when each was written."""

    def __init__(self, publisher: HeldPublisher) -> None:
        self.written: list[str] = []
        self._publisher = publisher

    async def read(self, name: str) -> str | None:
        return self.written[-1] if self.written else None

    async def write(self, name: str, cursor: str) -> None:
        assert self._publisher.held == 0, "a cursor before the acknowledgement"
        self.written.append(cursor)


def feeder(source: Source, publisher: HeldPublisher, kept: Kept) -> Feeder:
    return Feeder(source, intake(POSTS), deletions(), publisher, kept, retry_seconds=(0.01, 0.05))  # type: ignore[arg-type]


def texts(publisher: HeldPublisher) -> list[int]:
    """Return the numbers of the posts that were published."""
    found = []
    for topic, _, value in publisher.records:
        if topic == POSTS:
            at = (value or b"").index(b"post ") + 5
            found.append(int((value or b"")[at:].split(b"\x00", 1)[0].split(b"\x02", 1)[0].decode(errors="ignore")))
    return found


async def run_until(feed: Feeder, done: Callable[[], bool]) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(feed.run(stop))
    await eventually(lambda: done() or running.done(), 20)
    stop.set()
    await running


Behave = Callable[[int, ServerConnection, int], Any]


@asynccontextmanager
async def jetstream_server(behave: Behave) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve; ``behave(connection number, socket, first message to send)`` sends. Yields the URL and the paths asked for."""
    paths: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        paths.append(socket.request.path)
        asked = socket.request.path.partition("cursor=")[2]
        first = max(0, (int(asked) - BEGUN_US) // SECOND_US + 1) if asked else 0
        await behave(len(paths) - 1, socket, first)

    async with serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/subscribe", paths


async def test_bluesky_is_read_on_over_breaks_each_post_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def behave(connection: int, socket: ServerConnection, first: int) -> None:
        for n in range(first, 100):
            await socket.send(json.dumps(commit(n)))
            if connection < 3 and n == 20 * (connection + 1):
                await asyncio.sleep(0.05)
                socket.transport.abort()  # in the middle of a stream, without a close frame
                return
        await socket.wait_closed()

    publisher = HeldPublisher()
    kept = Kept(publisher)
    async with jetstream_server(behave) as (url, paths):
        feed = feeder(Jetstream(url), publisher, kept)
        await run_until(feed, lambda: feed.counts["post"] == 100)
    assert [int(t) for t in sorted(texts(publisher))] == list(range(100))
    assert len(paths) == 4
    assert "cursor" not in paths[0]
    assert all("cursor=" in p for p in paths[1:])
    assert feed.counts["reconnected"] == 3
    assert feed.counts["repeated"] > 0  # the rewind
    assert kept.written == sorted(kept.written, key=int)
    assert int(kept.written[-1]) == BEGUN_US + 99 * SECOND_US


async def test_a_gap_after_a_long_absence_is_counted() -> None:
    async def behave(connection: int, socket: ServerConnection, first: int) -> None:
        for n in range(500, 510):  # the server has nothing older
            await socket.send(json.dumps(commit(n)))
        await socket.wait_closed()

    publisher = HeldPublisher()
    kept = Kept(publisher)
    kept.written.append(str(BEGUN_US))
    async with jetstream_server(behave) as (url, _):
        feed = feeder(Jetstream(url), publisher, kept)
        await run_until(feed, lambda: feed.counts["post"] == 10)
    assert feed.counts["gaps"] == 1


async def test_a_silent_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SILENCE_SECONDS", 0.1)

    async def behave(connection: int, socket: ServerConnection, first: int) -> None:
        if connection == 1:
            await socket.send(json.dumps(commit(0)))
        await socket.wait_closed()

    publisher = HeldPublisher()
    async with jetstream_server(behave) as (url, paths):
        feed = feeder(Jetstream(url), publisher, Kept(publisher))
        await run_until(feed, lambda: feed.counts["post"] == 1)
        assert len(paths) >= 2


async def test_rubbish_does_not_stop_a_feed() -> None:
    async def behave(connection: int, socket: ServerConnection, first: int) -> None:
        for text in (
            "{",
            "null",
            "[]",
            json.dumps({"kind": "commit"}),
            json.dumps({"kind": "identity", "time_us": 1}),
            "\0",
        ):
            await socket.send(text)
        await socket.send(json.dumps(commit(7, "delete")))
        await socket.send(json.dumps(commit(8)))
        await socket.wait_closed()

    publisher = HeldPublisher()
    async with jetstream_server(behave) as (url, _):
        feed = feeder(Jetstream(url), publisher, Kept(publisher))
        await run_until(feed, lambda: feed.counts["post"] == 1)
    assert feed.counts["unreadable"] == 5
    assert feed.counts["other"] == 1
    assert feed.counts["deletion"] == 1
    assert [(t, k) for t, k, _ in publisher.records] == [
        ("social.posts", b"did:plc:author2"), ("social.deletions", b"did:plc:author1"),
    ]  # fmt: skip


async def test_no_cursor_is_kept_for_what_kafka_has_not_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "posts.ndjson"
    post = {"author_id": "a", "network": "n", "event_time": 1, "text": "post"}
    path.write_text("".join(json.dumps({**post, "post_id": str(i), "text": f"post {i}"}) + "\n" for i in range(5)))
    publisher = HeldPublisher()
    kept = Kept(publisher)
    publisher.hold()
    running = asyncio.create_task(feeder(Lines("f", path=path), publisher, kept).run(asyncio.Event()))
    await eventually(lambda: publisher.held > 0)
    publisher.fail()
    with pytest.raises(PublishError):
        await running
    assert kept.written == []
    publisher.release()
    publisher.records.clear()
    feed = feeder(Lines("f", path=path), publisher, kept)
    await feed.run(asyncio.Event())
    assert feed.counts["post"] == 5
    assert kept.written[-1] == "5"
    with path.open("a") as file:
        file.write(json.dumps({**post, "post_id": "5", "text": "post 5 #x"}) + "\nrubbish\n")
    again = feeder(Lines("f", path=path), publisher, kept)
    await again.run(asyncio.Event())
    assert (again.counts["post"], again.counts["unreadable"]) == (1, 1)


@asynccontextmanager
async def sse_server(connections: list[bytes]) -> AsyncIterator[tuple[str, list[str | None]]]:
    """Answer request n with bytes n, in two pieces, and end it; yields the URL and each request's Last-Event-ID."""
    asked: list[str | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        found = [
            line.partition(":")[2].strip() for line in head.split("\r\n") if line.lower().startswith("last-event-id")
        ]
        asked.append(found[0] if found else None)
        body = connections[min(len(asked), len(connections)) - 1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body[:40])
        await writer.drain()
        writer.write(body[40:])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/stream", asked


def change(n: int) -> dict[str, Any]:
    return {
        "meta": {"id": f"uuid-{n}", "dt": "2026-03-01T12:00:00Z", "domain": "en.wikipedia.org"}, "type": "edit", "wiki": "enwiki",
        "user": "u", "title": f"Page {n}", "comment": "post 1 #fixed",
    }  # fmt: skip


async def test_wikimedia_is_resumed_by_its_last_event_id() -> None:
    def event(n: int) -> bytes:
        return f'event: message\nid: [{{"offset": {n}}}]\ndata: {json.dumps(change(n))}\n\n'.encode()

    half = b'id: [{"offset": 3}]\ndata: {"meta": {"id": "uuid-3"'
    publisher = HeldPublisher()
    kept = Kept(publisher)
    async with sse_server([event(0) + event(1) + half, b": keep-alive\n\n" + event(1) + event(2) + event(3)]) as (
        url,
        asked,
    ):
        feed = feeder(ServerSentEvents("wikimedia", url), publisher, kept)
        await run_until(feed, lambda: feed.counts["post"] == 4)
    assert asked[0] is None
    assert asked[1] == '[{"offset": 1}]'
    assert feed.counts["repeated"] >= 1
    assert len(publisher.records) == 4


def test_what_a_post_of_bluesky_says() -> None:
    tag = {
        "features": [{"$type": "app.bsky.richtext.facet#tag", "tag": "Rain"}, {"$type": "app.bsky.richtext.facet#link"}]
    }
    seen = BEGUN_US // 1000 + 5_000
    message = commit(
        5, facets=[tag], tags=["Rain", "more"], createdAt="2026-09-21T13:33:25.000Z",
        reply={"parent": {"uri": "at://did:plc:x/app.bsky.feed.post/abc"}},
    )  # fmt: skip
    found = jetstream(message)
    assert (found.kind, found.cursor) == ("post", str(BEGUN_US + 5 * SECOND_US))
    assert found.fields == {
        "post_id": "did:plc:author2/post5", "author_id": "did:plc:author2", "network": "bluesky",
        "event_time": found.fields["event_time"],
        "text": "post 5", "language": "en", "hashtags": ["Rain", "more"], "reply_to": "did:plc:x/abc",
    }  # fmt: skip
    assert seen - 86_400_000 <= found.fields["event_time"] <= seen
    for lie in ("2030-01-01T00:00:00Z", "1999-01-01T00:00:00Z", "yesterday", "2026-09-21T13:33:25", None):
        assert jetstream(commit(5, createdAt=lie)).fields["event_time"] == seen


def test_what_a_post_of_mastodon_says() -> None:
    data = {
        "id": "9", "created_at": "2026-03-01T12:00:00.000Z",
        "content": "<p>It is <b>raining</b> &amp; cold<br>here</p><p>#Rain</p>",
        "account": {"acct": "alice"}, "language": "en", "tags": [{"name": "rain"}], "in_reply_to_id": "8",
    }  # fmt: skip
    found = mastodon("update", data, None, "m.example")
    assert found.fields["text"] == "It is raining & cold\nhere\n#Rain"
    assert (found.fields["post_id"], found.fields["reply_to"]) == ("m.example/9", "m.example/8")
    assert found.fields["hashtags"] == ["rain"]
    assert mastodon("delete", "9", None, "m.example").fields["post_id"] == "m.example/9"
    assert mastodon("update", {}, None, "h").kind == "unreadable"
    assert mastodon("notification", {}, None, "h").kind == "other"
    assert plain_text("no tags") == "no tags"


def test_what_an_edit_of_wikimedia_says() -> None:
    found = wikimedia(change(1), "c")
    assert (found.kind, found.fields["hashtags"], found.fields["network"]) == ("post", ["Page 1", "fixed"], "enwiki")
    assert wikimedia({**change(1), "type": "log"}, "c").kind == "other"
    assert wikimedia({"meta": {"domain": "canary"}}, "c").kind == "other"
    assert wikimedia(None, "c").kind == "unreadable"


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a #b c", ["b"]),
        ("#Grüße #2026 #v2", ["Grüße", "v2"]),
        ("a#b http://x/#y &#39;", []),
        ("#one#two", ["one"]),
        ("(#in)", ["in"]),
    ],
)
def test_hashtags_are_taken_from_a_text(text: str, tags: list[str]) -> None:
    assert plain({"text": text}, None).fields["hashtags"] == tags


def test_spans_of_nothing_are_nothing() -> None:
    assert isinstance(intake(POSTS).from_objects([], 0).values, Spans)
