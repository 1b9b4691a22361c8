"""What was handed to a client and is not acknowledged yet: in SQLite, so that it outlives the process."""

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluvial.errors import FluvialError

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, event TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rejected (number INTEGER PRIMARY KEY, topic TEXT NOT NULL, event TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
VERSION = 1

WhenFull = Literal["wait", "drop-oldest", "refuse"]
Durability = Literal["process", "power"]


class OutboxError(FluvialError):
    """The buffer on disk cannot be used."""


class OutboxFullError(OutboxError):
    """The buffer is full and was asked to refuse."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One event that waits: its number, which only grows, its topic, and itself as JSON."""

    number: int
    topic: str
    event: str


class Outbox:
    """A bounded queue on disk of one process; safe to use from several threads.

    ``sequence_field``, where an event lacks it, is set to the event's number: it never repeats, also after a restart, so a
    repeat can be told from a second event. ``durability`` "process" survives `kill -9`; "power" a power cut as well, for
    the price of a disk flush per call.
    """

    def __init__(
        self,
        path: Path,
        *,
        most: int,
        when_full: WhenFull,
        sequence_field: str | None,
        durability: Durability,
    ) -> None:
        """Open or create it.

        Raises:
            OutboxError: the file is none of ours, damaged, or used by another process.
        """
        self._most = most
        self._when_full = when_full
        self._sequence_field = sequence_field
        self._changed = threading.Condition()
        self._closed = False
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'NORMAL' if durability == 'process' else 'FULL'}")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise OutboxError(f"{path} is a buffer of version {version}", hint=f"this fluvial reads {VERSION}")
            self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except sqlite3.Error as e:
            held = "locked" in str(e)
            raise OutboxError(
                f"cannot open the buffer {path}: {e}",
                hint="another process uses it: give each its own" if held else "move it away, a new one is made",
            ) from None
        (self._waiting,) = self._db.execute("SELECT count(*) FROM events").fetchone()

    def append(self, topic: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Keep events; when this returns they will arrive, whatever becomes of this process.

        Raises:
            OutboxFullError: there is no room, and ``when_full`` is "refuse".
            ValueError, TypeError: an event is not JSON (nothing is kept then).
        """
        for a in range(0, len(events), max(1, self._most // 2)):
            self._append(topic, events[a : a + max(1, self._most // 2)])

    def _append(self, topic: str, events: Sequence[Mapping[str, Any]]) -> None:
        texts = [json.dumps(e, ensure_ascii=False, allow_nan=False) for e in events]
        with self._changed:
            self._make_room(len(events))
            self._db.execute("BEGIN IMMEDIATE")
            try:
                (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
                for i, event in enumerate(events):
                    if self._sequence_field is not None and event.get(self._sequence_field) is None:
                        numbered = {**event, self._sequence_field: last + 1 + i}
                        texts[i] = json.dumps(numbered, ensure_ascii=False, allow_nan=False)
                self._db.executemany("INSERT INTO events (topic, event) VALUES (?, ?)", [(topic, t) for t in texts])
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._waiting += len(events)
            self._changed.notify_all()

    def oldest(self, most: int) -> list[Waiting]:
        """Return the oldest events, all of one topic."""
        with self._changed:
            found = [Waiting(*r) for r in self._db.execute("SELECT * FROM events ORDER BY number LIMIT ?", (most,))]
        return [w for w in found if w.topic == found[0].topic]

    def settle(self, accepted: Sequence[Waiting], rejected: Sequence[tuple[Waiting, str]]) -> None:
        """Forget events that arrived; move those that the gateway refused for good aside, with the reason."""
        done = [(w.number,) for w in (*accepted, *(w for w, _ in rejected))]
        with self._changed:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM events WHERE number = ?", done)
            kept = [(w.number, w.topic, w.event, reason) for w, reason in rejected]
            self._db.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)", kept)
            self._db.execute("COMMIT")
            (self._waiting,) = self._db.execute("SELECT count(*) FROM events").fetchone()
            self._changed.notify_all()

    def rejected(self) -> list[tuple[Waiting, str]]:
        """Return what was refused for good, with the reasons."""
        with self._changed:
            return [(Waiting(*r[:3]), r[3]) for r in self._db.execute("SELECT * FROM rejected ORDER BY number")]

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return int(self._waiting)

    @property
    def dropped(self) -> int:
        """How many events were dropped because the buffer was full, ever."""
        with self._changed:
            row = self._db.execute("SELECT value FROM facts WHERE name = 'dropped'").fetchone()
        return int(row[0]) if row else 0

    def wait(self, least: int, seconds: float) -> None:
        """Return when at least so many events wait, it is closed, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting >= least, seconds)

    def wait_until_empty(self, seconds: float | None) -> bool:
        """Return true when nothing waits any more, false when the time is over."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._waiting == 0, seconds))

    def stop_waiting(self) -> None:
        """End every wait: the client is closing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file."""
        with self._changed:
            self._db.close()

    def _make_room(self, events: int) -> None:
        if self._waiting + events <= self._most:
            return
        if self._when_full == "refuse":
            raise OutboxFullError(f"{self._waiting:,} events wait already", hint="the gateway is away; try later")
        if self._when_full == "wait":
            self._changed.wait_for(lambda: self._closed or self._waiting + events <= self._most)
            if self._closed:
                raise OutboxFullError("the client was closed while the buffer was full", hint="send it again")
            return
        count = self._waiting + events - self._most
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(
            "DELETE FROM events WHERE number IN (SELECT number FROM events ORDER BY number LIMIT ?)", (count,)
        )
        self._db.execute(
            "INSERT INTO facts VALUES ('dropped', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (count,),
        )
        self._db.execute("COMMIT")
        self._waiting -= count
