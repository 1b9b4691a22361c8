"""What must not reach the log in clear: fields replaced by keyed pseudonyms, or left out."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluvial.errors import SettingsError
from fluvial.producers.fields import Field
from fluvial.records import Column, DoubleLists, Doubles, Longs, Spans, StringLists
from fluvial.schemas.columns import repeated, spans_from_strings

KEY_LINE = re.compile(r"([a-z0-9]{1,8}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """The key in use; ``name`` is part of every pseudonym, so that those of different keys are told apart."""

    name: str
    secret: bytes

    def pseudonym(self, text: bytes) -> bytes:
        """Return ``<name>.<128 bits of HMAC-SHA-256 in hex>``: equal for equal texts, and not to be undone without the key."""
        return f"{self.name}.{hmac.digest(self.secret, text, hashlib.sha256)[:16].hex()}".encode()


@dataclass(frozen=True, slots=True)
class Privacy:
    """What is done to one topic's events: ``pseudonyms`` are text fields, ``dropped`` ones have a default or may be null."""

    key: PseudonymKey | None
    pseudonyms: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether events change at all."""
        return bool(self.pseudonyms or self.dropped)

    def apply(self, columns: Mapping[str, Column], fields: Sequence[Field]) -> dict[str, Column]:
        """Return the columns as they may be kept."""
        out = dict(columns)
        for name in self.pseudonyms:
            column = columns[name]
            assert isinstance(column, Spans)
            assert self.key is not None
            texts = [column.bytes_at(i) for i in range(len(column))]
            known = {t: self.key.pseudonym(t) for t in set(texts) if t is not None}
            out[name] = spans_from_strings([None if t is None else known[t] for t in texts])
        for f in fields:
            if f.name in self.dropped:
                out[f.name] = _blank(columns[f.name], f)
        return out


def privacy_of(topic: str, fields: Sequence[Field], key: PseudonymKey | None, pseudonyms: str, dropped: str) -> Privacy:
    """Return what the settings (``topic:field``, comma separated) say of one topic.

    Raises:
        SettingsError: there is no such field, or nothing can stand in its place.
    """
    by_name = {f.name: f for f in fields}
    hidden, gone = _named(pseudonyms, topic), _named(dropped, topic)
    for name in (*hidden, *gone):
        if name not in by_name:
            raise SettingsError(f"{topic}:{name}: there is no such field", hint=f"fields are {', '.join(by_name)}")
    for name in hidden:
        if by_name[name].kind != "text":
            raise SettingsError(f"{topic}:{name} is not a text", hint="a pseudonym takes the place of a text")
    for name in gone:
        if by_name[name].required:
            raise SettingsError(f"{topic}:{name} has no default", hint="make it a pseudonym instead")
    return Privacy(key, hidden, gone)


def pseudonym_key(path: Path) -> PseudonymKey:
    """Return the key in use: the file's last line, ``<name> <64 hex digits>``; a file that is not there is made.

    To rotate, append a line: new events get new pseudonyms. Earlier lines stay, to tell who was who.

    Raises:
        SettingsError: the file cannot be read, or others may read it.
    """
    if not path.exists():
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(f"a {secrets.token_hex(32)}\n")
    if path.stat().st_mode & 0o077:
        raise SettingsError(f"{path} can be read by others", hint=f"chmod 600 {path}")
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    match = KEY_LINE.fullmatch(lines[-1].strip()) if lines else None
    if match is None:
        raise SettingsError(f"the last line of {path} is no key", hint="a name, a space, 64 hex digits")
    return PseudonymKey(match[1], bytes.fromhex(match[2]))


def _named(setting: str, topic: str) -> tuple[str, ...]:
    pairs = [p.strip().rpartition(":") for p in setting.split(",") if p.strip()]
    for place, _, name in pairs:
        if not place or not name:
            raise SettingsError(f"{setting!r}: not topic:field", hint="e.g. social.posts:author_id")
    return tuple(name for place, _, name in pairs if place == topic)


def _blank(column: Column, field: Field) -> Column:
    n = len(column)
    none = np.zeros(n, np.bool_)
    if isinstance(column, Spans):
        return repeated(None if field.default is None else str(field.default), n)
    if isinstance(column, Doubles):
        return Doubles(np.full(n, field.default or 0.0), none if field.default is None else ~none)
    if isinstance(column, Longs):
        return Longs(np.full(n, field.default or 0, np.int64), none if field.default is None else ~none)
    offsets = np.zeros(n + 1, np.int64)
    if isinstance(column, StringLists):
        return StringLists(offsets, spans_from_strings([]))
    return DoubleLists(offsets, np.zeros(0))
