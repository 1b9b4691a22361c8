"""What a file's rows are: the raw records, or events as typed columns."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from fluvial.archive.cells import RECORD, to_arrow
from fluvial.archive.files import EVENTS, RECORDS
from fluvial.records import Mask, RecordColumns


@dataclass(frozen=True, slots=True)
class Rows:
    """How records become rows of ``schema``, which begins with ``offset`` and ``timestamp``.

    ``make`` takes the records and where the broker set the timestamp. ``content`` is `files.RECORDS` or `files.EVENTS`;
    ``repeated`` are the columns (as Parquet names them) whose values repeat.
    """

    content: str
    schema: pa.Schema
    make: Callable[[RecordColumns, Mask], pa.RecordBatch]
    repeated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what readers rely on."""
        assert self.content in (RECORDS, EVENTS)
        assert self.schema.names[:2] == ["offset", "timestamp"]


RAW = Rows(RECORDS, RECORD, to_arrow, ("key", "timestamp_type", "headers.list.element.key"))
