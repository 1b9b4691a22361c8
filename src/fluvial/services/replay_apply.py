"""Comparing what a replay made with what a table has, and writing what differs."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fluvial.cluster.progress import Report, Step
from fluvial.query import QueryTable
from fluvial.records import I64, Column, Longs
from fluvial.schemas.declarations import DAY_MS
from fluvial.services.replay_plan import as_iso
from fluvial.services.replay_records import WRITING, ReplayError, ReplayRecord, ReplayRecords
from fluvial.services.replay_writing import Destination
from fluvial.services.table_rows import differences, primary_key, produced
from fluvial.stream_apps.replaying import Made

SHOWN_KEYS = 5


@dataclass(slots=True)
class Tally:
    """Rows by what became of them.

    ``earlier`` were written by the same run before it was interrupted, ``expired`` are past the table's retention.
    """

    changed: int = 0
    added: int = 0
    unchanged: int = 0
    earlier: int = 0
    expired: int = 0


def refuse_lower_generation(present: pa.Table, record: ReplayRecord) -> None:
    """Check that the run's generation is above that of all rows which it may replace.

    Raises:
        ReplayError: a worker writes with a higher one than the settings say.
    """
    generations = present["generation"].to_numpy()
    highest = int(generations.max()) if len(generations) else 0
    if highest > record.generation > 0:
        raise ReplayError(
            f"rows of the range have generation {highest}, above this replay's {record.generation}: they would win",
            hint=f"a worker was started with --generation {highest}: say worker.generation={highest} in fluvial.toml",
        )


class RowWriter:
    """Writes the rows of one run. ``everything`` leaves nothing out, also what the table has already.

    Rows whose window ended ``retention_days`` or more before ``now_ms`` are not brought back (0: kept for ever).
    """

    def __init__(
        self,
        table: QueryTable,
        present: pa.Table,
        records: ReplayRecords,
        destination: Destination | None,
        *,
        everything: bool,
        retention_days: int,
        now_ms: int,
        report: Report,
    ) -> None:
        self._table = table
        self._present = present
        self._records = records
        self._destination = destination
        self._everything = everything
        self._alive_after = now_ms - retention_days * DAY_MS if retention_days else None
        self._report = report
        self._seen = np.zeros(len(present), np.bool_)
        self.tally = Tally()
        self.written = 0

    async def write(self, made: Mapping[int, Made], record: ReplayRecord) -> ReplayRecord:
        """Write what differs, one source partition after the other; return the record as it is then.

        Without a destination it only counts.
        """
        generations = self._present["generation"].to_numpy()
        self._seen |= np.isin(self._present["source_partition"].to_numpy(), list(record.finished))
        self._seen |= (generations == record.generation) & (record.generation > 0)
        t = self.tally = Tally(record.changed, record.added, record.unchanged)
        for n, (p, part) in enumerate(sorted(made.items()), 1):
            columns: dict[str, Column] = part.columns(record.generation)
            found = differences(primary_key(self._table), produced(columns), self._present)
            self._seen[found.same[:, 1]] = self._seen[found.changed[:, 1]] = True
            before = (generations[found.same[:, 1]] == record.generation) & (record.generation > 0)
            t.earlier += int(before.sum())
            t.unchanged += int((~before).sum())
            added = self._alive(columns, found.left)
            t.changed += len(found.changed)
            t.added += len(added)
            t.expired += len(found.left) - len(added)
            rows = np.sort(np.concatenate([found.changed[:, 0], added]))
            if self._everything:
                rows = self._alive(columns, np.arange(part.counts.windows))
            if self._destination is not None:
                await self._destination.write(columns, rows)
                self.written += len(rows)
                record = replace(
                    record, status=WRITING, finished=record.finished | {p},
                    changed=t.changed, added=t.added, unchanged=t.unchanged,
                )  # fmt: skip
                record = await asyncio.to_thread(self._records.update, record)
            verb = "" if self._destination is not None else "would be "
            self._report(Step("write", f"{verb}{len(rows):,} rows of partition {p}", n, len(made)))
        return record

    def _alive(self, columns: Mapping[str, Column], rows: I64) -> I64:
        ends = columns["window_end"]
        assert isinstance(ends, Longs)
        return rows if self._alive_after is None else rows[ends.values[rows] > self._alive_after]

    def kept(self) -> tuple[int, tuple[str, ...]]:
        """Return how many final rows of the table were not made, and some of their keys."""
        at = np.flatnonzero(~self._seen & (self._present["final"].to_numpy() == 1))
        names = [name for name, _ in self._table.key]
        some = self._present.take(at[:SHOWN_KEYS]).to_pylist()
        return len(at), tuple(" ".join([*(str(r[n]) for n in names), as_iso(r[self._table.time])]) for r in some)
