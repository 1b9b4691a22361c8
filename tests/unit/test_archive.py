"""Records to Parquet and back, and what an archive refuses."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial.archive.layout import archived_files, partition_folder
from fluvial.archive.reader import (
    ArchiveError,
    archived_bounds,
    archived_partitions,
    first_offset_since,
    read_archive,
)
from fluvial.archive.writer import PartitionWriter
from fluvial.records import RecordColumns
from fluvial.transport.headers import all_headers
from fluvial.transport.parse import parse
from fluvial.transport.walk import readable, walk
from support.record_batches import Rec, build

TOPIC = "iot.readings"

small = st.none() | st.binary(max_size=12)
a_record = st.tuples(
    st.integers(-1, 2**41), small, small,
    st.lists(st.tuples(st.text(max_size=6), small), max_size=3) | st.just([]),
)  # fmt: skip


def parsed(raw: bytes, *, first: int = 0) -> RecordColumns:
    headers = walk(raw)
    chosen = np.flatnonzero(readable(headers, []))
    return parse(TOPIC, 3, first, raw, headers, chosen, int(headers.next_offset[-1]))


def some(count: int, first: int = 0, gap: int = 0) -> RecordColumns:
    """Return ``count`` records from offset ``first``, followed by ``gap`` offsets without one."""
    records = [Rec(i, 1_000 * (first + i), b"k%d" % (i % 3), b"v%d" % (first + i)) for i in range(count)]
    return parsed(build(records, base_offset=first, last_offset_delta=count + gap - 1))


def plain(r: RecordColumns) -> list[tuple[object, ...]]:
    return [
        (int(r.offset[i]), int(r.timestamp[i]), r.key.bytes_at(i), r.value.bytes_at(i), all_headers(r, i))
        for i in range(len(r))
    ]


def written(directory: Path, *parts: RecordColumns, file_bytes: int = 1) -> PartitionWriter:
    """Write each part; by default each becomes a file."""
    writer = PartitionWriter(directory, TOPIC, 3, file_bytes=file_bytes)
    if writer.next_offset is None:
        writer.begin(int(parts[0].offset[0]))
    for p in parts:
        writer.write(p, np.zeros(len(p), np.bool_))
    writer.finish_file()
    return writer


def read(directory: Path, start: int = 0, end: int | None = None) -> list[tuple[object, ...]]:
    return [row for r in read_archive(directory, TOPIC, 3, start=start, end=end) for row in plain(r)]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.tuples(st.lists(a_record, min_size=1, max_size=6), st.integers(0, 3)), min_size=1, max_size=4),
    file_bytes=st.sampled_from([1, 400, 1 << 20]),
    start=st.integers(0, 20),
    width=st.integers(0, 20),
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]], int]],
    file_bytes: int,
    start: int,
    width: int,
) -> None:
    directory, parts, at = tmp_path_factory.mktemp("archive"), [], 0
    for records, gap in batches:
        recs = [Rec(i, time, key, value, tuple(headers)) for i, (time, key, value, headers) in enumerate(records)]
        parts.append(parsed(build(recs, base_offset=at, last_offset_delta=len(recs) + gap - 1)))
        at += len(recs) + gap
    written(directory, *parts, file_bytes=file_bytes)
    every = [row for p in parts for row in plain(p)]
    assert read(directory) == every
    end = min(start + width, at)
    asked = list(read_archive(directory, TOPIC, 3, start=start, end=end))
    assert [row for r in asked for row in plain(r)] == [r for r in every if start <= r[0] < end]  # type: ignore[operator]
    if start < end:
        assert asked[-1].next_offset == end


def test_a_header_section_comes_back_byte_for_byte(tmp_path: Path) -> None:
    headers = (("fluvial-tick", b"1700000000000"), ("", None), ("é", b""), ("x" * 200, b"y" * 20_000))
    before = parsed(build([Rec(0, 5, b"k", None, headers), Rec(1, 6, None, b"", ())]))
    written(tmp_path, before)
    [after] = read_archive(tmp_path, TOPIC, 3)
    ends = [int(before.header_start[0]), len(after.value.buffer)]
    section = after.value.buffer[int(after.header_start[0]) : int(after.header_start[1])].tobytes()
    assert before.value.buffer[ends[0] : ends[0] + len(section)].tobytes() == section
    assert after.value.bytes_at(0) is None
    assert after.value.bytes_at(1) == b""


def test_it_is_plain_parquet_with_the_types_that_are_documented(tmp_path: Path) -> None:
    records = parsed(build([Rec(0, 1_700_000_000_123, b"k", b"v", (("a", b"b"),)), Rec(1, 7, None, None)]))
    writer = PartitionWriter(tmp_path, TOPIC, 3)
    writer.begin(0)
    writer.write(records, np.array([True, False]))
    writer.finish_file()
    table = pq.read_table(tmp_path)
    rows = table.to_pylist()
    assert [str(table.schema.field(n).type) for n in ("offset", "timestamp", "timestamp_type", "key", "value")] == [
        "int64", "timestamp[ms, tz=UTC]", "string", "binary", "binary",
    ]  # fmt: skip
    assert rows[0]["timestamp"].isoformat() == "2023-11-14T22:13:20.123000+00:00"
    assert (rows[0]["timestamp_type"], rows[1]["timestamp_type"]) == ("LogAppendTime", "CreateTime")
    assert rows[0]["headers"] == [{"key": "a", "value": b"b"}]
    assert rows[1]["headers"] == []
    assert (rows[0]["topic"], rows[0]["partition"]) == (TOPIC, 3)
    assert rows[1]["key"] is rows[1]["value"] is None


def test_a_second_writer_continues_exactly_where_the_finished_files_end(tmp_path: Path) -> None:
    written(tmp_path, some(5, 0, gap=2))
    second = PartitionWriter(tmp_path, TOPIC, 3)
    assert second.next_offset == 7
    second.write(some(4, 7), np.zeros(4, np.bool_))
    second.abandon()
    assert second.next_offset == 7
    (partition_folder(tmp_path, TOPIC, 3) / ".unfinished-by-one-that-died").write_bytes(b"PAR1")
    third = PartitionWriter(tmp_path, TOPIC, 3)
    assert third.next_offset == 7
    third.write(some(6, 7), np.zeros(6, np.bool_))
    third.finish_file()
    assert [(f.first, f.next) for f in archived_files(tmp_path, TOPIC, 3)] == [(0, 7), (7, 13)]
    assert [p.name for p in partition_folder(tmp_path, TOPIC, 3).iterdir() if p.name.startswith(".")] == []
    assert [row[0] for row in read(tmp_path)] == [0, 1, 2, 3, 4, *range(7, 13)]


def test_offsets_without_records_are_covered_too(tmp_path: Path) -> None:
    none, spans = np.zeros(0, np.int64), some(1).key.take(np.zeros(0, np.int64))
    empty = RecordColumns(TOPIC, 3, none, none, spans, spans, none, 9)
    written(tmp_path, some(5), empty)
    written(tmp_path, some(1, 9))
    parts = list(read_archive(tmp_path, TOPIC, 3))
    assert [(len(p), p.next_offset) for p in parts] == [(5, 5), (0, 9), (1, 10)]
    assert archived_bounds(tmp_path, TOPIC, 3) == (0, 10)


def test_an_archive_that_begins_late_is_read_from_where_it_begins(tmp_path: Path) -> None:
    written(tmp_path, some(3, 40))
    assert [row[0] for row in read(tmp_path)] == [40, 41, 42]
    assert archived_partitions(tmp_path, TOPIC) == [3]
    assert archived_partitions(tmp_path, "other") == []


def test_times_find_offsets_at_the_grain_of_row_groups(tmp_path: Path) -> None:
    written(tmp_path, some(5), some(5, 5), some(5, 10))
    found = [first_offset_since(tmp_path, TOPIC, 3, ms) for ms in (0, 4_000, 4_001, 9_500, 14_000, 14_001)]
    assert found == [0, 0, 5, 10, 10, 15]


def test_a_missing_file_is_refused_wherever_it_was(tmp_path: Path) -> None:
    written(tmp_path, some(5), some(5, 5), some(5, 10))
    first, second, _ = (f.path for f in archived_files(tmp_path, TOPIC, 3))
    second.rename(tmp_path / "second")
    with pytest.raises(ArchiveError, match="no file of the offsets 5 to 9"):
        read(tmp_path)
    with pytest.raises(ArchiveError, match="no file of the offsets 5 to 9"):
        PartitionWriter(tmp_path, TOPIC, 3)
    assert len(read(tmp_path, 10)) == len(read(tmp_path, 0, 5)) == 5
    (tmp_path / "second").rename(second)
    first.unlink()
    with pytest.raises(ArchiveError, match="no file of the offsets 0 to 4"):
        read(tmp_path)
    assert len(read(tmp_path, 5)) == 10
    with pytest.raises(ArchiveError, match="ends at 14, 6 offsets short"):
        read(tmp_path, 5, 21)
    with pytest.raises(ArchiveError, match=r"has no archive of iot.readings\[3\]"):
        read(tmp_path / "elsewhere")


def test_a_gap_that_was_accepted_is_told_as_such(tmp_path: Path) -> None:
    written(tmp_path, some(5))
    writer = PartitionWriter(tmp_path, TOPIC, 3)
    writer.begin(8)
    writer.write(some(2, 8), np.zeros(2, np.bool_))
    writer.finish_file()
    with pytest.raises(ArchiveError, match=r"no offsets 5 to 7 .* deleted from Kafka before"):
        read(tmp_path)
    assert PartitionWriter(tmp_path, TOPIC, 3).next_offset == 10
    assert [row[0] for row in read(tmp_path, 8)] == [8, 9]


def test_a_file_in_the_wrong_place_or_twice_is_refused(tmp_path: Path) -> None:
    written(tmp_path, some(5), some(5, 5))
    second = archived_files(tmp_path, TOPIC, 3)[1].path
    renamed = second.with_name(second.name.replace("10-", "11-"))
    second.rename(renamed)
    with pytest.raises(ArchiveError, match="from 5 to 9"):
        read(tmp_path)
    renamed.with_name(second.name.replace("5-", "4-")).write_bytes(b"")
    with pytest.raises(ArchiveError, match="both hold the offsets 4 to 4"):
        read(tmp_path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_byte_is_found_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, place: float, flip: int
) -> None:
    directory = tmp_path_factory.mktemp("archive")
    written(directory, some(50))
    [file] = archived_files(directory, TOPIC, 3)
    data = bytearray(file.path.read_bytes())
    data[int(place * len(data))] ^= flip
    file.path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is damaged"):
        read(directory)
