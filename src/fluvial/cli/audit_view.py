"""What an audit found, as a person reads it and as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fluvial.cli.console import columns

if TYPE_CHECKING:
    from fluvial.oracle.comparing import Difference
    from fluvial.services.audit_rows import AuditedRows
    from fluvial.services.auditing import Audit

FATES = ("records", "ticks", "aggregated", "duplicates", "late", "dead_lettered")
# What a row can come to without being right or wrong, and what that means.
APART = {
    "not settled": "not settled: newer than the workers' checkpoints, or on their way to Cassandra",
    "preview of a session": "previews of sessions that were open when a run ended",
    "replayed": "written by a replay, which is not recomputed",
    "of an older generation": "left by an older generation, which the present one does not have",
    "older than the log": "older than what the log still has: these cannot be recomputed",
    "expired": "past their retention",
    "dead-lettered by the sink": "set aside by the sink: see its dead letters",
}


def as_text(audit: "Audit", *, by_partition: bool) -> str:
    """Return both tables, everything that is wrong in words, and the verdict."""
    parts = [_books(audit, by_partition)]
    if audit.tables:
        parts.append(_tables(audit.tables))
    wrong = [*_wrong_books(audit), *(line for t in audit.tables for line in _wrong_rows(t))]
    if wrong:
        parts.append("\n".join(wrong))
    if notes := list(_notes(audit)):
        parts.append("\n".join(notes))
    return "\n\n".join([*parts, _verdict(audit)])


def as_json(audit: "Audit") -> str:
    """Return all of it, one document: ``ok``, ``books`` and ``tables``."""
    books = [
        asdict(line)
        | {"ok": not line.problems, "waiting": line.waiting, "gaps": line.log.gaps}
        | {"recomputed": audit.recomputed.get((line.pipeline, line.partition), ())}
        for line in audit.lines
    ]
    tables = [
        {
            "pipeline": t.pipeline,
            "read_at": t.view.name,
            "by_itself": t.view.alone,
            "keys": t.keys,
            "fates": t.fates,
            "generations": t.generations,
            "cells": t.cells,
            "problems": t.problems,
            "differences": [asdict(d) for d in t.differences],
            "ok": not t.problems,
        }
        for t in audit.tables
    ]
    return json.dumps({"ok": audit.ok, "books": books, "tables": tables}, default=str)


def _books(audit: "Audit", by_partition: bool) -> str:
    rows: dict[tuple[str, str], list[int]] = {}
    wrong: set[tuple[str, str]] = set()
    skipped = any(line.ledger and line.ledger.skipped for line in audit.lines)
    fates = (*FATES, "skipped") if skipped else FATES
    for line in audit.lines:
        name = line.pipeline, line.topic + (f"[{line.partition}]" if by_partition else "")
        row = rows.setdefault(name, [0] * (len(fates) + 2))
        values = [getattr(line.ledger, fate) if line.ledger else 0 for fate in fates]
        for i, value in enumerate([*values, line.log.present, line.waiting]):
            row[i] += value
        if line.problems or audit.recomputed.get((line.pipeline, line.partition)):
            wrong.add(name)
    titles = [
        "PIPELINE",
        "TOPIC",
        "READ",
        *(f.upper().replace("_", "-") for f in fates[1:]),
        "IN LOG",
        "WAITING",
        "VERDICT",
    ]
    told = [[*name, *(f"{v:,}" for v in row), "WRONG" if name in wrong else "adds up"] for name, row in rows.items()]
    return columns(titles, told)


def _tables(tables: "Iterable[AuditedRows]") -> str:
    titles = ["TABLE", "READ AT", "KEYS", "EQUAL", "DIFFERENT", "MISSING", "NOT EXPECTED", "APART", "VERDICT"]
    told = []
    for t in tables:
        counts = [t.fates.get(fate, 0) for fate in ("equal", "different", "missing", "not expected")]
        apart = sum(t.fates.get(fate, 0) for fate in APART)  # type: ignore[call-overload]
        keys = "all" if t.keys is None else f"{t.keys:,}"
        verdict = "WRONG" if t.problems else "equal" if counts[0] else "nothing to compare"
        told.append([t.pipeline, t.view.name, keys, *(f"{n:,}" for n in (*counts, apart)), verdict])
    return columns(titles, told)


def _wrong_books(audit: "Audit") -> Iterator[str]:
    for line in audit.lines:
        for problem in (*line.problems, *audit.recomputed.get((line.pipeline, line.partition), ())):
            yield f"{line.pipeline} {line.topic}[{line.partition}]: {problem}"


def _wrong_rows(t: "AuditedRows") -> Iterator[str]:
    for d in t.differences:
        yield difference(d, f"at {t.view.name}: " if t.view.host is not None else "")
    if t.problems > len(t.differences):
        yield f"… and {t.problems - len(t.differences):,} more in {t.pipeline} ({t.view.name}): see --limit"


def difference(d: "Difference", where: str = "") -> str:
    """Return a difference as one line."""
    key = " ".join(f"{name}={value}" for name, value in d.key)
    row = f"{where}{d.table}  {key}  {_time(d.window_start)}"
    match d.kind:
        case "missing":
            return f"{row}  missing: should have been written at offset {d.wanted}"
        case "not expected":
            return f"{row}  not expected: nothing in the log makes this row (it claims offset {d.found})"
        case "stale":
            return f"{row}  stale: as of offset {d.found}, should be as of {d.wanted} at least"
        case "write timestamp":
            cell = f"{d.column} was" if d.column else "was"
            return f"{row}  {cell} written at {_stamp(d.found)}, should be {_stamp(d.wanted)}"
        case "expiry":
            return f"{row}  {_expiry(d.found, 'expires')}, {_expiry(d.wanted, 'should expire')}"
        case _:
            return f"{row}  {d.column} is {_cell(d.column, d.found)}, should be {_cell(d.column, d.wanted)}"


def _notes(audit: "Audit") -> Iterator[str]:
    empty = sum(line.ledger is None for line in audit.lines)
    if empty:
        yield f"Of {empty} partitions nothing was read yet."
    told: dict[str, list[str]] = {}
    for line in audit.lines:
        for note in line.notes if line.ledger else ():
            told.setdefault(f"{line.topic}[{line.partition}]: {note}", []).append(line.pipeline)
    yield from told
    for t in audit.tables:
        for fate, meaning in APART.items():
            if n := t.fates.get(fate, 0):  # type: ignore[call-overload]
                of = ", ".join(f"{rows:,} of generation {g}" for g, rows in sorted(t.generations.items()))
                generations = f" ({of})" if fate in ("replayed", "of an older generation") else ""
                yield f"{t.pipeline} ({t.view.name}): {n:,} rows {meaning}{generations}"
    if any(t.view.host is not None and not t.view.alone for t in audit.tables):
        yield (
            "The nodes were asked at LOCAL_ONE, which a node may forward to another one. To be sure, start them with "
            "-Dcassandra.enable_nodelocal_queries=true"
        )


def _verdict(audit: "Audit") -> str:
    if audit.ok:
        read = sum({(line.topic, line.partition): line.log.present for line in audit.lines}.values())
        cells = sum(t.cells for t in audit.tables)
        compared = f"; {cells:,} cells compared, all equal" if audit.tables else ""
        return f"All right: {read:,} records in the log, each with one fate{compared}."
    books = sum(len(line.problems) for line in audit.lines) + sum(map(len, audit.recomputed.values()))
    rows = sum(t.problems for t in audit.tables)
    return f"WRONG: {books} in the books, {rows} in the tables." if audit.tables else f"WRONG: {books} in the books."


def _stamp(at: int) -> str:
    generation, offset = at >> 44, at & ((1 << 44) - 1)
    if generation > 50 and at > 1_000_000_000_000_000:
        return f"{at} (the wall clock of {_time(at // 1000)}: by hand?)"
    return f"{at} (generation {generation}, offset {offset})"


def _expiry(at_ms: int | None, verb: str) -> str:
    return f"{verb} at {_time(at_ms)}" if at_ms is not None else f"{verb} never"


def _cell(name: str | None, value: Any) -> str:
    if name in ("window_start", "window_end") and isinstance(value, int):
        return _time(value)
    return "null" if value is None else repr(value)


def _time(ms: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")
