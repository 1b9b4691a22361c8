"""The seam in aiokafka's fetcher: for batch topics, one `FetchedBatch` per fetched partition, no object per record.

Only the consumer whose fetcher is handed to `read_batches` is changed; every other aiokafka consumer of the process
keeps the stock classes.
"""

from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from aiokafka.consumer import fetcher as stock
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition

from fluvial.records import I64, Mask, RecordColumns
from fluvial.transport.batches import FetchedBatch
from fluvial.transport.parse import parse
from fluvial.transport.walk import readable, walk


class KeptRecords(MemoryRecords):  # type: ignore[misc]
    """aiokafka's view of a record set, which also keeps the bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class BatchRecords:
    """Stands in for aiokafka's ``PartitionRecords``: yields one record, whose value is the `FetchedBatch`.

    Its offset is the last one that the fetch covers, so that offset + 1 is where to read next, past control batches and
    compaction gaps. ``next_fetch_offset`` moves there when it is taken, as aiokafka's ``FetchResult`` expects.
    """

    def __init__(
        self, tp: TopicPartition, raw: bytes, aborted: list[tuple[int, int]], fetch_offset: int, isolation: int
    ) -> None:
        self.next_fetch_offset = fetch_offset
        self._tp = tp
        self._raw: bytes | None = raw
        self._aborted = aborted if isolation == stock.READ_COMMITTED else []

    def __iter__(self) -> Iterator[ConsumerRecord]:
        return self

    def __next__(self) -> ConsumerRecord:
        if self._raw is None:
            raise StopIteration
        raw, self._raw = self._raw, None
        headers = walk(raw)
        first, after = self.next_fetch_offset, int(headers.next_offset[-1])
        if after <= first:
            raise StopIteration
        self.next_fetch_offset = after
        chosen = np.flatnonzero(readable(headers, self._aborted) & (headers.next_offset > first))
        tp = self._tp

        def columns() -> RecordColumns:
            return parse(tp.topic, tp.partition, first, raw, headers, chosen, after)

        def log_append_time(offset: I64) -> Mask:
            within = np.searchsorted(headers.base_offset, offset, side="right") - 1
            return np.asarray(headers.log_append_time[within], np.bool_)

        batch = FetchedBatch(tp.topic, tp.partition, first, after, len(raw), columns, log_append_time)
        timestamp = int(headers.max_timestamp[-1])
        return ConsumerRecord(tp.topic, tp.partition, after - 1, timestamp, 0, None, batch, None, -1, len(raw), ())


def compile_kernels() -> None:
    """Compile what reading needs, or load it from numba's cache: seconds once, so that no batch waits for it later."""
    parse("", 0, 0, b"", walk(b""), np.zeros(0, np.int64), 0)


def read_batches(fetcher: stock.Fetcher, topics: frozenset[str]) -> None:
    """Let this fetcher hand out `FetchedBatch` values for ``topics``; other topics stay as they were.

    The stock method that handles fetch responses is kept and bound again with two of its names exchanged, so positions,
    high watermarks, errors and preferred replicas stay aiokafka's own.
    """

    def partition_records(
        tp: TopicPartition,
        records: KeptRecords,
        aborted: list[tuple[int, int]] | None,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation: int,
    ) -> Any:
        if tp.topic in topics:
            return BatchRecords(tp, records.raw, list(aborted or []), fetch_offset, isolation)
        return stock.PartitionRecords(
            tp, records, aborted, fetch_offset, key_deserializer, value_deserializer, check_crcs, isolation
        )

    method = stock.Fetcher._proc_fetch_request
    names = {**method.__globals__, "MemoryRecords": KeptRecords, "PartitionRecords": partition_records}
    rebound = FunctionType(method.__code__, names, method.__name__, method.__defaults__, method.__closure__)
    fetcher._proc_fetch_request = MethodType(rebound, fetcher)
