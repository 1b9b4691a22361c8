"""Who may publish what: API keys, hashed at rest, each for some topics and some keys' prefix.

The file holds no key, only SHA-256 digests: a key is 256 random bits, which no guessing reaches, so a slow hash would only
slow the gateway. It is read again when it changes.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fluvial.errors import FluvialError

FORM = re.compile(r"flv_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeysError(FluvialError):
    """A key cannot be made, found or read."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do. ``topics`` empty: all; ``prefix``: what each event's record key must start with."""

    name: str
    topics: tuple[str, ...] = ()
    prefix: str = ""
    events_per_second: float = 0.0

    def may_publish(self, topic: str) -> bool:
        """Whether events may go to that topic."""
        return not self.topics or topic in self.topics


ANYONE = Grant("anyone")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored."""

    id: str
    digest: str
    name: str
    topics: tuple[str, ...]
    prefix: str
    events_per_second: float
    created: str
    revoked: str | None = None

    @property
    def grant(self) -> Grant:
        """What it allows."""
        return Grant(self.name, self.topics, self.prefix, self.events_per_second)


class KeyFile:
    """The keys of one deployment, in a JSON file that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, StoredKey] = {}

    def grant(self, key: str) -> Grant | None:
        """Return what a key allows, or None when it is unknown or revoked; takes the same time for every wrong key."""
        match = FORM.fullmatch(key)
        found = self._read().get(match[1]) if match else None
        digest = _digest(key)
        same = hmac.compare_digest(digest, found.digest if found else _digest(""))
        return found.grant if found and same and found.revoked is None else None

    def all(self) -> list[StoredKey]:
        """Return all keys, oldest first."""
        return sorted(self._read().values(), key=lambda k: k.created)

    def add(self, name: str, topics: tuple[str, ...], prefix: str = "", events_per_second: float = 0.0) -> str:
        """Make a key and return it: this is the only time that it can be seen.

        Raises:
            KeysError: the name is taken or malformed.
        """
        if not NAME.fullmatch(name):
            raise KeysError(f"{name!r} is no name for a key", hint="letters, digits, dots, dashes; at most 64")
        if any(k.name == name and k.revoked is None for k in self._read().values()):
            raise KeysError(f"there is a key named {name} already", hint=f"`fluvial keys revoke {name}` first")
        number = secrets.token_hex(4)
        key = f"flv_{number}_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        stored = StoredKey(number, _digest(key), name, topics, prefix, events_per_second, now)
        self._change(lambda keys: keys | {number: stored})
        return key

    def revoke(self, name: str) -> StoredKey:
        """Make a key worthless from now on.

        Raises:
            KeysError: there is none of that name.
        """
        found = next((k for k in self._read().values() if name in (k.name, k.id) and k.revoked is None), None)
        if found is None:
            raise KeysError(f"there is no key {name}", hint="`fluvial keys list` shows all")
        gone = replace(found, revoked=datetime.now(UTC).isoformat(timespec="milliseconds"))
        self._change(lambda keys: keys | {gone.id: gone})
        return gone

    def _change(self, change: Callable[[dict[str, StoredKey]], dict[str, StoredKey]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        keys = change(dict(self._read()))
        new = self._path.with_suffix(f".{os.getpid()}.new")
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"version": 1, "keys": [asdict(k) for k in keys.values()]}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def _read(self) -> dict[str, StoredKey]:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
            return self._keys
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            self._keys = _parsed(self._path)
            self._stamp = stamp
        return self._keys


def _parsed(path: Path) -> dict[str, StoredKey]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        keys = [StoredKey(**{**k, "topics": tuple(k["topics"])}) for k in data["keys"]]
    except (ValueError, KeyError, TypeError) as e:
        raise KeysError(f"{path} is not readable as a file of keys: {e}", hint="restore it, or delete it") from None
    return {k.id: k for k in keys}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
