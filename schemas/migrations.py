"""Versioned CQL: the ``.cql`` files of a directory, applied once each by name, recorded with their checksums."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fluvial.errors import ProvisioningError
from fluvial.schemas.findings import Difference, Finding


class CqlSession(Protocol):
    """What is used of a driver's session that has a keyspace."""

    def execute(self, query: Any, parameters: Any = None, timeout: float = ...) -> Any:
        """Run one statement."""
        ...


RECORD_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    scope text, name text, checksum text, applied_at timestamp, PRIMARY KEY (scope, name)
) WITH comment = 'Which CQL files fluvial init has applied.'
"""
DDL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Migration:
    """One CQL file. ``scope`` tells the shipped files from those of another declaration."""

    scope: str
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its statements; comments and blank space outside of strings do not count."""
        return hashlib.sha256("\n".join(statements(self.text)).encode()).hexdigest()


def migrations_in(directory: Path, scope: str) -> tuple[Migration, ...]:
    """Return the CQL files of a directory by name."""
    return tuple(Migration(scope, p.name, p.read_text(encoding="utf-8")) for p in sorted(directory.glob("*.cql")))


def apply_migrations(session: CqlSession, migrations: tuple[Migration, ...]) -> list[Finding]:
    """Apply what was not applied yet; statements should be repeatable (IF NOT EXISTS), for an interrupted run.

    A file that has changed since it was applied is reported and neither applied nor recorded.

    Raises:
        ProvisioningError: Cassandra refuses a statement.
    """
    session.execute(RECORD_TABLE, timeout=DDL_SECONDS)
    findings = []
    for scope in dict.fromkeys(m.scope for m in migrations):
        rows = session.execute(
            "SELECT name, checksum FROM schema_migrations WHERE scope = %s", (scope,), timeout=DDL_SECONDS
        )
        applied: Mapping[str, str] = {row.name: row.checksum for row in rows}
        findings += [_applied(session, m, applied.get(m.name)) for m in migrations if m.scope == scope]
    return findings


def _applied(session: CqlSession, migration: Migration, recorded: str | None) -> Finding:
    name = f"{migration.scope}/{migration.name}"
    if recorded == migration.checksum:
        return Finding("migration", name, "verified")
    if recorded is not None:
        hint = "restore the file and put the change into a new one with a higher number"
        difference = Difference("checksum", migration.checksum[:12], f"{recorded[:12]} when it was applied", hint)
        return Finding("migration", name, "differs", (difference,))
    for number, statement in enumerate(statements(migration.text), 1):
        try:
            session.execute(statement, timeout=DDL_SECONDS)
        except Exception as e:
            raise ProvisioningError(
                f"{name}, statement {number}: {type(e).__name__}: {e}",
                hint="mend the file and run `fluvial init` again",
            ) from e
    session.execute(
        "INSERT INTO schema_migrations (scope, name, checksum, applied_at) VALUES (%s, %s, %s, toTimestamp(now()))",
        (migration.scope, migration.name, migration.checksum),
        timeout=DDL_SECONDS,
    )
    return Finding("migration", name, "created")


def statements(text: str) -> list[str]:
    """Split CQL into statements without comments, blank space run together outside of quotes."""
    out: list[str] = []
    current: list[str] = []
    i = 0
    while i < len(text):
        two = text[i : i + 2]
        if two in ("--", "//"):
            end = text.find("\n", i)
            i = len(text) if end < 0 else end
        elif two == "/*":
            end = text.find("*/", i + 2)
            i = len(text) if end < 0 else end + 2
            current.append(" ")
        elif text[i] in "'\"":
            end = text.find(text[i], i + 1)
            end = len(text) - 1 if end < 0 else end
            current.append(text[i : end + 1])
            i = end + 1
        elif text[i] == ";":
            out.append("".join(current).strip())
            current = []
            i += 1
        elif text[i].isspace():
            if current and current[-1] != " ":
                current.append(" ")
            i += 1
        else:
            current.append(text[i])
            i += 1
    out.append("".join(current).strip())
    return [s for s in out if s]
