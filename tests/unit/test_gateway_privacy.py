"""Nothing personal in the log: pseudonyms that only the key's holder can match, and fields that are left out."""

import io
import stat
from pathlib import Path
from typing import Any

import fastavro
import pytest

from fluvial.errors import SettingsError
from fluvial.producers.fields import fields_of
from fluvial.producers.gateway.intake import Checked, framed
from fluvial.producers.gateway.privacy import PseudonymKey, privacy_of, pseudonym_key
from fluvial.schemas.avro import load_schema
from support.gate import NOW_MS, POSTS, intake

SCHEMA = load_schema("fluvial.social.SocialPost")
PARSED = fastavro.parse_schema(SCHEMA)
FIELDS = fields_of(SCHEMA)
KEY = PseudonymKey("a", b"k" * 32)
POST = {
    "post_id": "1", "author_id": "alice", "network": "n", "event_time": NOW_MS, "text": "hello", "language": "en",
    "hashtags": ["x"], "reply_to": None,
}  # fmt: skip


def decoded(checked: Checked, i: int) -> dict[str, Any]:
    value = checked.values.bytes_at(i)
    assert value is not None
    event = fastavro.schemaless_reader(io.BytesIO(value[5:]), PARSED, None)
    assert isinstance(event, dict)
    return event


def avro(post: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED, post)
    return out.getvalue()


def test_authors_become_pseudonyms_in_key_and_value_by_every_door() -> None:
    door = intake(POSTS, privacy_of(POSTS, FIELDS, KEY, "social.posts:author_id,iot.readings:site", ""))
    posts = [POST, {**POST, "author_id": "bob"}, POST]
    for checked in (door.from_objects(posts, NOW_MS), door.from_framed(framed(1, [avro(p) for p in posts]), NOW_MS)):
        authors = [decoded(checked, i)["author_id"] for i in range(3)]
        assert authors[0] == authors[2] == KEY.pseudonym(b"alice").decode() != authors[1]
        assert [checked.keys.bytes_at(i) for i in range(3)] == [a.encode() for a in authors]
        for i in range(3):
            value = checked.values.bytes_at(i)
            assert value is not None
            assert b"alice" not in value
        assert decoded(checked, 0)["text"] == "hello"


def test_fields_are_left_out() -> None:
    door = intake(POSTS, privacy_of(POSTS, FIELDS, None, "", "social.posts:language,social.posts:hashtags"))
    event = decoded(door.from_objects([POST], NOW_MS), 0)
    assert (event["language"], event["hashtags"], event["author_id"]) == (None, [], "alice")


def test_a_prefix_is_held_against_the_true_name() -> None:
    door = intake(POSTS, privacy_of(POSTS, FIELDS, KEY, "social.posts:author_id", ""))
    checked = door.from_objects([POST, {**POST, "author_id": "bob"}], NOW_MS, prefix="ali")
    assert [r.index for r in checked.rejected] == [1]
    assert "bob" not in checked.rejected[0].reason


def test_a_key_is_made_once_is_private_and_rotates(tmp_path: Path) -> None:
    path = tmp_path / "pseudonyms.keys"
    first = pseudonym_key(path)
    assert pseudonym_key(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("a") as file:
        file.write("b " + "0f" * 32 + "\n")
    second = pseudonym_key(path)
    assert second.name == "b"
    assert second.pseudonym(b"alice") != first.pseudonym(b"alice")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="read by others"):
        pseudonym_key(path)
    path.chmod(0o600)
    path.write_text("not a key\n")
    with pytest.raises(SettingsError, match="is no key"):
        pseudonym_key(path)


@pytest.mark.parametrize(
    ("pseudonyms", "dropped", "message"),
    [("social.posts:nobody", "", "no such field"), ("social.posts:event_time", "", "not a text"),
     ("author_id", "", "not topic:field"), ("", "social.posts:text", "no default")],
)  # fmt: skip
def test_what_cannot_be_hidden_is_refused_at_the_start(pseudonyms: str, dropped: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        privacy_of(POSTS, FIELDS, KEY, pseudonyms, dropped)
