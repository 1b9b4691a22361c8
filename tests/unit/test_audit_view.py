"""What an audit says: a verdict in words, every difference as one line, all of it as JSON."""

import json
from threading import Lock
from typing import Any

import pytest

from fluvial.cli.audit_view import as_json, as_text, difference
from fluvial.oracle.comparing import Difference, Kind
from fluvial.services.audit_ledger import AuditedLine, Kept, LogAccount
from fluvial.services.audit_rows import AuditedRows
from fluvial.services.audit_tables import View
from fluvial.services.auditing import Audit
from fluvial.services.ledger import LedgerLine

MINUTE = 1_772_366_400_000  # 2026-03-01T12:00:00Z


def told(kind: Kind, column: str | None, found: Any, wanted: Any) -> Difference:
    return Difference("minutes", (("sensor", "s1"),), MINUTE, kind, column, found, wanted)


def books(*problems: str) -> AuditedLine:
    ledger = LedgerLine("readings", 1, "minutes", 10, 12, 10, 1, 6, 1, 1, 1)
    kept = Kept("readings.late", 1, cut=False)
    return AuditedLine("readings", 1, "minutes", ledger, LogAccount(0, 12, 10, 10), kept, kept, problems, ())


def rows(view: View, *differences: Difference, problems: int | None = None, **fates: int) -> AuditedRows:
    n = len(differences) if problems is None else problems
    return AuditedRows("minutes", view, None, fates, {}, 40, n, differences)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (told("cell", "mean", 1.5, -0.0), "mean is 1.5, should be -0.0"),
        (told("cell", "window_end", MINUTE, MINUTE + 1), "is 2026-03-01T12:00:00Z, should be 2026-03-01T12:00:00.001Z"),
        (told("cell", "count", None, 3), "count is null, should be 3"),
        (told("missing", None, None, 7), "missing: should have been written at offset 7"),
        (told("not expected", None, 7, None), "not expected: nothing in the log makes this row (it claims offset 7)"),
        (told("stale", "source_offset", 5, 7), "stale: as of offset 5, should be as of 7 at least"),
        (
            told("write timestamp", None, (1 << 44) | 5, 5),
            "was written at 17592186044421 (generation 1, offset 5), should be 5 (generation 0, offset 5)",
        ),
        (
            told("write timestamp", "count", MINUTE * 1000, 5),
            "count was written at 1772366400000000 (the wall clock of 2026-03-01T12:00:00Z: by hand?), should be 5",
        ),
        (told("expiry", None, MINUTE, None), "expires at 2026-03-01T12:00:00Z, should expire never"),
    ],
)  # fmt: skip
def test_a_difference_is_one_line_that_says_found_and_should_be(found: Difference, words: str) -> None:
    line = difference(found)
    assert line.startswith("minutes  sensor=s1  2026-03-01T12:00:00Z  ")
    assert words in line


def test_all_right_is_said_with_what_was_looked_at() -> None:
    text = as_text(Audit((books(),), (rows(View("LOCAL_QUORUM", 6), equal=2),)), by_partition=True)
    assert "readings[1]" in text
    assert text.endswith("All right: 10 records in the log, each with one fate; 40 cells compared, all equal.")


def test_what_is_wrong_is_listed_counted_and_named_by_its_node() -> None:
    node = View("127.0.0.2", 11, host=Lock(), alone=True)
    audit = Audit(
        (books("3 of the log's 13 records were not counted"),),
        (rows(node, told("cell", "count", 1, 2), problems=3, different=2),),
        {("minutes", 1): ("late: the ledger has 1, recomputed are 2",)},
    )
    text = as_text(audit, by_partition=False)
    assert "minutes readings[1]: 3 of the log's 13 records were not counted" in text
    assert "minutes readings[1]: late: the ledger has 1, recomputed are 2" in text
    assert "at 127.0.0.2: minutes  sensor=s1" in text
    assert "… and 2 more in minutes (127.0.0.2): see --limit" in text
    assert text.endswith("WRONG: 2 in the books, 3 in the tables.")
    document = json.loads(as_json(audit))
    assert not document["ok"]
    assert document["books"][0]["recomputed"] == ["late: the ledger has 1, recomputed are 2"]
    (table,) = document["tables"]
    assert (table["read_at"], table["by_itself"], table["differences"][0]["wanted"]) == ("127.0.0.2", True, 2)


def test_rows_that_are_apart_are_explained_and_a_forwarded_read_is_admitted() -> None:
    node = View("127.0.0.2", 10, host=Lock())
    text = as_text(Audit((books(),), (rows(node, **{"not settled": 4}),)), by_partition=False)
    assert "minutes (127.0.0.2): 4 rows not settled: newer than the workers' checkpoints" in text
    assert "nothing to compare" in text
    assert "enable_nodelocal_queries" in text
