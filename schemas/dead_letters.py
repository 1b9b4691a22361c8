"""Records that cannot be used: kept untouched with their provenance, and counted against a limit."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fluvial.errors import DeadLetterLimitError
from fluvial.records import I64, RecordColumns, RowError
from fluvial.schemas.topics import WRAPPED_BYTES
from fluvial.transport.headers import all_headers

WINDOW = 10_000
# What a dead letter may take, uncompressed: its topic takes a little more, whatever the codec makes of it.
ROOM_BYTES = WRAPPED_BYTES - (64 << 10)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One bad record, as ``fluvial.DeadLetter`` has it; ``key`` is also the dead letter's own key."""

    key: bytes | None
    fields: dict[str, Any]


def dead_letters(records: RecordColumns, errors: list[RowError]) -> list[DeadLetter]:
    """Return a dead letter per error.

    What would be too large for the dead-letter topic is left out, largest first: the record is in its own topic still.
    """
    out = []
    for e in errors:
        key, payload, headers = records.key.bytes_at(e.row), records.value.bytes_at(e.row), all_headers(records, e.row)
        sizes = {
            "payload": len(payload or b""),
            "headers": sum(len(name) + len(value or b"") for name, value in headers),
            "key": 2 * len(key or b""),  # it is the dead letter's own key, too
        }
        left_out = 0
        while sum(sizes.values()) > ROOM_BYTES:
            largest = max(sizes, key=lambda part: sizes[part])
            left_out += sizes.pop(largest)
        payload, headers, key = (
            payload if "payload" in sizes else None,
            headers if "headers" in sizes else [],
            key if "key" in sizes else None,
        )
        offset = int(records.offset[e.row])
        where = f"{records.topic}[{records.partition}]@{offset}"
        fields = {
            "payload": payload,
            "topic": records.topic,
            "partition": records.partition,
            "offset": offset,
            "key": key,
            "headers": [{"name": name, "value": value} for name, value in headers],
            "timestamp": int(records.timestamp[e.row]),
            "stage": e.stage,
            "error_type": e.error_type,
            "error_message": f"cannot {e.stage} {where}: {e.message}; kept in {records.topic}.dead-letter",
            "payload_left_out": left_out,
        }
        out.append(DeadLetter(key, fields))
    return out


class DeadLetterLimit:
    """Stops a worker when nearly everything is bad: then the code is, or a deploy, and not the records.

    Counts per partition: a run of bad records without a good one between them, and the share of bad ones among the last
    10,000 (once that many were seen).
    """

    def __init__(self, *, ratio: float, run: int) -> None:
        self._ratio = ratio
        self._run = run
        self._in_a_row = 0
        self._recent = np.zeros(0, np.bool_)

    def note(self, topic: str, partition: int, records: int, bad_rows: I64) -> None:
        """Take note of a batch of ``records`` of which ``bad_rows`` (ascending) were bad.

        Raises:
            DeadLetterLimitError: the limit is passed; nothing of this batch may be acknowledged.
        """
        bad = np.zeros(records, np.bool_)
        bad[bad_rows] = True
        good = np.flatnonzero(~bad)
        run = self._in_a_row + (int(good[0]) if len(good) else records)
        longest = max(
            run, int(np.diff(good).max() - 1) if len(good) > 1 else 0, records - 1 - int(good[-1]) if len(good) else 0
        )
        self._in_a_row = records - 1 - int(good[-1]) if len(good) else run
        self._recent = np.concatenate([self._recent, bad])[-WINDOW:]
        hint = (
            "nothing is skipped: mend the cause and start again, or raise worker.dead_letter_ratio and dead_letter_run"
        )
        if longest >= self._run:
            raise DeadLetterLimitError(f"{topic}[{partition}]: {longest} bad records in a row", hint=hint)
        share = float(self._recent.mean()) if len(self._recent) else 0.0
        if len(self._recent) == WINDOW and share >= self._ratio:
            raise DeadLetterLimitError(
                f"{topic}[{partition}]: {share:.0%} of the last {WINDOW:,} records are bad", hint=hint
            )
