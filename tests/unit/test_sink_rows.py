"""What is written: grouping, newest rows, expiry, routing keys, batches."""

import datetime
import struct
from dataclasses import replace

import numpy as np
import pytest
from cassandra import cqltypes
from hypothesis import given
from hypothesis import strategies as st

from fluvial.errors import SinkError
from fluvial.records import Column
from fluvial.schemas.columns import doubles, longs, spans_from_strings
from fluvial.schemas.declarations import Table
from fluvial.sinks.packing import composite_keys
from fluvial.sinks.rows import (
    SHARED_BYTES,
    SHARED_PARTITIONS,
    RowBatches,
    buckets,
    result_stamps,
    row_batches,
    usable,
)
from fluvial.sinks.targets import event_ids, result_target
from support.sink_rows import MINUTE_MS, SMALL, Row, columns_of, read_batches

DAY_MS = 86_400_000
NOW_MS = 1_760_000_000_000
TABLE = Table("small", ("sensor_id",), "day", retention_days=90)

rows_strategy = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "ä", ""]),
        st.integers(-3, 3000).map(lambda m: NOW_MS - NOW_MS % MINUTE_MS - m * MINUTE_MS),
        st.floats(allow_nan=False),
        st.integers(0, 2),
        st.integers(0, 50),
    ),
    max_size=60,
)


def batches_of(rows: list[Row], *, most: int = 100, now_ms: int = NOW_MS, **owner) -> RowBatches:
    columns, stamps = result_target(TABLE).rows(columns_of(rows))
    return row_batches(SMALL, columns, np.arange(len(rows)), stamps, now_ms=now_ms, rows_per_batch=most, **owner)


def stamp(row: Row) -> int:
    return row[3] << 44 | row[4]


def test_an_empty_fetch_makes_no_batches() -> None:
    assert len(batches_of([])) == 0


@given(rows_strategy, st.integers(1, 7))
def test_of_every_primary_key_the_row_with_the_greatest_timestamp_is_written_once(rows: list[Row], most: int) -> None:
    made = batches_of(rows, most=most)
    newest: dict[tuple[str, int], Row] = {}
    for row in rows:
        if (row[0], row[1]) not in newest or stamp(newest[row[0], row[1]]) <= stamp(row):
            newest[row[0], row[1]] = row
    written = {}
    for batch in read_batches(made):
        for sensor, _day, start, end, mean, generation, offset, written_at, ttl in batch:
            key = (sensor.decode(), *struct.unpack(">q", start))
            assert key not in written
            assert struct.unpack(">q", end) == (key[1] + MINUTE_MS,)
            assert struct.unpack(">q", written_at) == (stamp(newest[key]),)
            expires = key[1] + MINUTE_MS + 90 * DAY_MS
            assert struct.unpack(">i", ttl) == ((expires - NOW_MS) // 1000,)
            written[key] = (
                *key,
                *struct.unpack(">d", mean),
                *struct.unpack(">i", generation),
                *struct.unpack(">q", offset),
            )
    assert written == newest
    assert (made.rows, made.superseded) == (len(newest), len(rows) - len(newest))


@given(rows_strategy, st.integers(1, 7))
def test_a_batch_is_of_one_partition_or_stays_below_what_cassandra_warns_of(rows: list[Row], most: int) -> None:
    made = batches_of(rows, most=most)
    for i, batch in enumerate(read_batches(made)):
        partitions = list(dict.fromkeys((row[0], row[1]) for row in batch))
        if len(partitions) == 1:
            assert len(batch) <= most or made.bounds[i + 1] - made.bounds[i] <= SHARED_BYTES
        else:
            assert len(partitions) <= SHARED_PARTITIONS
            assert made.bounds[i + 1] - made.bounds[i] <= SHARED_BYTES


def test_rows_of_one_partition_keep_their_order_and_are_cut_at_rows_per_batch() -> None:
    rows = [("a", NOW_MS - i * MINUTE_MS, 1.0, 0, i) for i in range(250)]
    day = NOW_MS - NOW_MS % DAY_MS
    same_day = [r for r in rows if r[1] >= day]
    assert len(same_day) > 200
    made = batches_of(same_day, most=100)
    assert made.counts[:2] == [100, 100]
    offsets = [struct.unpack(">q", row[6])[0] for batch in read_batches(made) for row in batch]
    assert offsets == list(range(len(same_day)))


def test_few_rows_of_many_partitions_share_batches() -> None:
    made = batches_of([(f"sensor-{i}", NOW_MS, 1.0, 0, i) for i in range(100)])
    assert made.counts == [10] * 10


def test_partitions_of_different_replicas_never_share_a_batch() -> None:
    rows = [(f"sensor-{i}", NOW_MS, 1.0, 0, i) for i in range(100)]
    made = batches_of(rows, owner=lambda routing_key: routing_key[9] % 2)
    for key, batch in zip(made.routing, read_batches(made), strict=True):
        for row in batch:
            assert row[0] is not None
            assert row[0][7] % 2 == key[9] % 2
    assert sum(made.counts) == 100


def test_rows_past_their_retention_are_skipped_and_counted() -> None:
    kept = ("a", NOW_MS - 90 * DAY_MS - MINUTE_MS + 1000, 1.0, 0, 1)
    gone = ("b", NOW_MS - 90 * DAY_MS - MINUTE_MS + 999, 1.0, 0, 1)
    made = batches_of([kept, gone])
    assert (made.rows, made.expired) == (1, 1)
    [[row]] = read_batches(made)
    assert row[0] == b"a"
    assert row[-1] == struct.pack(">i", 1)


def test_a_table_without_retention_has_no_expiry() -> None:
    assert result_stamps(columns_of([("a", 0, 1.0, 3, 7)]), 0).expires_ms is None


@given(st.integers(0, 2**19 - 1), st.integers(0, 2**44 - 1), st.integers(0, 2**19 - 1), st.integers(0, 2**44 - 1))
def test_a_higher_generation_always_wins_and_a_higher_offset_within_it(g: int, o: int, g2: int, o2: int) -> None:
    first, second = result_stamps(columns_of([("a", 0, 1.0, g, o), ("a", 0, 1.0, g2, o2)]), 0).written.tolist()
    assert (first < second) == ((g, o) < (g2, o2))
    assert first >= 0


@given(st.lists(st.integers(-(10**13), 10**13)))
def test_buckets_are_the_utc_day_and_month_of_the_time(times: list[int]) -> None:
    epoch = datetime.datetime(1970, 1, 1)
    dates = [(epoch + datetime.timedelta(milliseconds=t)).date() for t in times]
    array = np.array(times, np.int64)
    assert buckets(array, "day").values.tolist() == [(d - epoch.date()).days for d in dates]
    assert buckets(array, "month").values.tolist() == [(d.replace(day=1) - epoch.date()).days for d in dates]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_routing_keys_are_cassandras_composite_type(parts: list[bytes]) -> None:
    [key] = [composite_keys([spans_from_strings([p]) for p in parts], np.array([0])).bytes_at(0)]
    if len(parts) == 1:
        assert key == parts[0]
    else:
        assert key == b"".join(struct.pack(">H", len(p)) + p + b"\0" for p in parts)


def test_rows_whose_key_is_null_or_too_long_are_not_usable() -> None:
    columns: dict[str, Column] = {
        "sensor_id": spans_from_strings(["a", None, "x" * 65_536, "x" * 65_535, "x" * 65_500]),
        "day": longs([1] * 5),
        "window_start": longs([1] * 5),
    }
    assert usable(columns, SMALL).tolist() == [True, False, False, False, True]


def test_key_columns_that_are_too_long_together_are_not_usable() -> None:
    plan = replace(SMALL, partition_key=("sensor_id", "metric", "day"))
    text = spans_from_strings(["x" * 40_000, "x" * 20_000])
    columns: dict[str, Column] = {
        "sensor_id": text,
        "metric": text,
        "day": longs([1, 1]),
        "window_start": longs([1, 1]),
    }
    assert usable(columns, plan).tolist() == [False, True]


@pytest.mark.parametrize("time_ms", [-(2**63), -(9 * 10**15) - 1, 9 * 10**15 + 1, 2**63 - 1 - MINUTE_MS])
def test_rows_of_a_time_that_cassandra_cannot_tell_are_not_usable_and_harm_no_other(time_ms: int) -> None:
    target = result_target(Table("small", ("sensor_id",), "day", retention_days=1))
    columns, stamps = target.rows(columns_of([("a", NOW_MS, 1.0, 0, 1), ("b", time_ms, 1.0, 0, 2)]))
    good = usable(columns, SMALL)
    assert good.tolist() == [True, False]
    made = row_batches(SMALL, columns, np.flatnonzero(good), stamps, now_ms=NOW_MS, rows_per_batch=10)
    assert made.source.tolist() == [0]


def test_readings_are_told_apart_by_sequence_or_else_by_value() -> None:
    sequence = longs([7, 0, 0, -1], np.array([True, False, False, True]))
    value = longs([0, 0, 0, 0]).values.astype(float)
    value[1], value[2] = 21.5, -0.0
    ids = event_ids(sequence, doubles(value))
    assert [ids.bytes_at(i) for i in range(4)] == [b"s7", b"v21.5", b"v0.0", b"s-1"]


def test_day_cells_are_the_bucket_of_the_window_start() -> None:
    [[row]] = read_batches(batches_of([("a", NOW_MS, 1.0, 0, 1)]))
    day = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC).date()
    assert row[1] == cqltypes.SimpleDateType.serialize(day, 5)


def test_a_column_that_the_rows_lack_is_named() -> None:
    columns, stamps = result_target(TABLE).rows(columns_of([("a", NOW_MS, 1.0, 0, 1)]))
    with pytest.raises(SinkError, match=r"table tests.small has a column mean, its rows have not"):
        row_batches(
            SMALL,
            {k: v for k, v in columns.items() if k != "mean"},
            np.arange(1),
            stamps,
            now_ms=NOW_MS,
            rows_per_batch=10,
        )
