"""The sink on real servers: what is in the topic is in the table, whatever came twice, late or bad."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from fluvial.cassandra import close, connect, connected
from fluvial.errors import DeadLetterLimitError, SinkError
from fluvial.oracle.from_cassandra import read_table
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.columns import double_lists, doubles, longs, spans_from_strings, string_lists
from fluvial.schemas.declarations import Table
from fluvial.services.sinking import SetAside
from fluvial.settings import CassandraSettings, KafkaSettings, SinkSettings
from fluvial.sinks.app import Sink, SinkTopic
from fluvial.sinks.tables import plan_table
from fluvial.sinks.targets import readings_target, result_target
from fluvial.stream_apps.shipped import HASHTAG_MINUTE, NETWORK_MINUTE, SENSOR_MINUTE, TRENDING_HOUR
from fluvial.transport.connection import librdkafka_config
from support.sinking import (
    MINUTE_MS,
    Row,
    decoder,
    encoded,
    minute_columns,
    publish,
    running_sink,
    set_aside,
    shipped_tables,
)
from support.transport import committed, ends, eventually, fresh_topic, group_id

pytestmark = [
    pytest.mark.integration,
    # Faust passes its loop to aiokafka, which warns about that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MINUTES = SENSOR_MINUTE.result_topic
DAY_MS = 86_400_000
TODAY_MS = int(time.time() * 1000) // DAY_MS * DAY_MS
WRITETIME = "writetime"


@pytest.fixture(scope="module")
def tables(cassandra: CassandraSettings) -> Iterator[CassandraSettings]:
    with shipped_tables(cassandra) as settings:
        yield settings


@pytest.fixture(autouse=True)
def empty(tables: CassandraSettings) -> None:
    with connected(tables, "write", keyspace=tables.keyspace) as session:
        for name in ("sensor_minute", "sensor_readings", "trending_hour"):
            session.execute(f"TRUNCATE {name}", timeout=60)


def in_table(tables: CassandraSettings, name: str) -> list[dict]:
    return read_table([tables.contact_points], tables.port, tables.keyspace, name)


def means(tables: CassandraSettings) -> dict[tuple[str, int], tuple[float, int]]:
    return {(r["sensor_id"], r["window_start"]): (r["mean"], r[WRITETIME]) for r in in_table(tables, "sensor_minute")}


@contextmanager
def fresh_dead_letters(kafka: KafkaSettings, topic: str) -> Iterator[str]:
    admin = AdminClient(librdkafka_config(kafka))
    dead = f"{topic}.dead-letter"
    admin.create_topics([NewTopic(dead, 1, 1)])[dead].result(30)
    yield dead
    admin.delete_topics([dead])[dead].result(30)


def newest(rows: list[Row]) -> dict[tuple[str, int], tuple[float, int]]:
    found: dict[tuple[str, int], tuple[float, int]] = {}
    for sensor, start, mean, generation, offset in rows:
        stamp = generation << 44 | offset
        if (sensor, start) not in found or found[sensor, start][1] <= stamp:
            found[sensor, start] = mean, stamp
    return found


@pytest.mark.parametrize("seed", [1, 2])
async def test_tables_converge_whatever_the_order_and_however_often(
    kafka: KafkaSettings, tables: CassandraSettings, seed: int
) -> None:
    rng = random.Random(seed)
    rows: list[Row] = [
        (f"s{rng.randrange(8)}", TODAY_MS - rng.randrange(3000) * MINUTE_MS, rng.random(), rng.randrange(2), offset)
        for offset in range(1500)
    ]
    rows += rng.choices(rows, k=1500)
    rng.shuffle(rows)
    with fresh_topic(kafka, 2) as topic:
        # The same window's rows in two partitions: what a zombie worker and its successor would write.
        half = len(rows) // 2
        for partition, part in enumerate((rows[:half], rows[half:])):
            publish(kafka, topic, encoded(MINUTES, minute_columns(part)), partition)
        target = result_target(SENSOR_MINUTE.table)
        async with running_sink(kafka, tables, topic, MINUTES, target, partitions=2) as running:
            await running.catch_up()
            counts = running.sink.writer.counts
            assert counts.rows + counts.superseded == len(rows)
    assert means(tables) == newest(rows)


async def test_an_older_offset_after_a_newer_one_never_wins_and_a_higher_generation_does(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    steps = [(2.0, 0, 200), (1.0, 0, 100), (3.0, 1, 50), (4.0, 0, 10_000)]
    with fresh_topic(kafka) as topic:
        target = result_target(SENSOR_MINUTE.table)
        async with running_sink(kafka, tables, topic, MINUTES, target) as running:
            seen = []
            for mean, generation, offset in steps:
                publish(kafka, topic, encoded(MINUTES, minute_columns([("a", TODAY_MS, mean, generation, offset)])))
                await running.catch_up()
                seen.append(means(tables)["a", TODAY_MS][0])
    assert seen == [2.0, 2.0, 3.0, 3.0]


async def test_rows_past_their_retention_are_skipped_and_the_others_expire_when_they_should(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    old = TODAY_MS - 91 * DAY_MS
    with fresh_topic(kafka) as topic:
        publish(kafka, topic, encoded(MINUTES, minute_columns([("old", old, 1.0, 0, 1), ("new", TODAY_MS, 1.0, 0, 2)])))
        target = result_target(replace(SENSOR_MINUTE.table, retention_days=90))
        async with running_sink(kafka, tables, topic, MINUTES, target) as running:
            await running.catch_up()
            assert running.sink.writer.counts.expired == 1
    assert [r["sensor_id"] for r in in_table(tables, "sensor_minute")] == ["new"]
    with connected(tables, "read", keyspace=tables.keyspace) as session:
        [(ttl,)] = session.execute("SELECT TTL(mean) FROM sensor_minute")
    expected = (TODAY_MS + MINUTE_MS + 90 * DAY_MS) / 1000 - time.time()
    assert ttl == pytest.approx(expected, abs=120)


async def test_rows_that_cannot_be_used_go_to_the_dead_letter_topic_and_hold_nothing_up(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    good = encoded(MINUTES, minute_columns([("a", TODAY_MS, 1.0, 0, 1)]))
    long_key = encoded(MINUTES, minute_columns([("x" * 70_000, TODAY_MS, 1.0, 0, 1)]))
    with fresh_topic(kafka) as topic, fresh_dead_letters(kafka, topic) as dead:
        publish(kafka, topic, [good[0][:9], *good, None, *long_key])
        async with running_sink(kafka, tables, topic, MINUTES, result_target(SENSOR_MINUTE.table)) as running:
            await running.catch_up()
            counts = running.sink.counts
            assert (counts.read, counts.dead_lettered, counts.nulls) == (4, 2, 1)
            assert running.sink.writer.counts.rows == 1
        assert ends(kafka, dead) == [2]
    assert list(means(tables)) == [("a", TODAY_MS)]


async def test_a_row_that_cassandra_refuses_is_set_aside_and_the_others_of_its_batch_are_written(
    kafka: KafkaSettings, tables: CassandraSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the sink knew nothing of what keys may be: Cassandra itself has to say it.
    monkeypatch.setattr("fluvial.sinks.app.usable", lambda columns, _: columns["sensor_id"].length >= 0)
    rows: list[Row] = [("a" if i != 7 else "x" * 70_000, TODAY_MS - i * MINUTE_MS, 1.0, 0, i) for i in range(20)]
    with fresh_topic(kafka) as topic, fresh_dead_letters(kafka, topic) as dead:
        publish(kafka, topic, encoded(MINUTES, minute_columns(rows)))
        async with running_sink(kafka, tables, topic, MINUTES, result_target(SENSOR_MINUTE.table)) as running:
            await running.catch_up()
            assert (running.sink.counts.dead_lettered, running.sink.writer.counts.rows) == (1, 19)
        assert ends(kafka, dead) == [1]
    assert len(means(tables)) == 19


async def test_a_sink_whose_rows_are_nearly_all_bad_stops_and_skips_none_of_them(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    good = encoded(MINUTES, minute_columns([("a", TODAY_MS, 1.0, 0, 1)]))
    group = group_id()
    with fresh_topic(kafka) as topic, fresh_dead_letters(kafka, topic) as dead:
        publish(kafka, topic, [*good, *[b"bad"] * 30])
        writer = DatumWriter(load_schema("fluvial.DeadLetter"), 1)
        stopping = SetAside(writer, ratio=1.0, run=30)
        target = result_target(SENSOR_MINUTE.table)
        with pytest.raises(DeadLetterLimitError, match="30 bad records in a row"):
            async with running_sink(kafka, tables, topic, MINUTES, target, group=group, dead_letters=stopping) as first:
                await eventually(lambda: first.sink.app.failure is not None)
        assert committed(kafka, group, topic)[0] in (-1001, 0)
        assert ends(kafka, dead) == [0]
        # The limit raised, it goes on from there.
        raised = SetAside(writer, ratio=1.0, run=31)
        async with running_sink(kafka, tables, topic, MINUTES, target, group=group, dead_letters=raised) as second:
            await second.catch_up()
        assert ends(kafka, dead) == [30]
    assert list(means(tables)) == [("a", TODAY_MS)]


async def test_a_sink_that_is_started_again_goes_on_where_the_last_one_was(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    target = result_target(SENSOR_MINUTE.table)
    with fresh_topic(kafka) as topic:
        publish(kafka, topic, encoded(MINUTES, minute_columns([("a", TODAY_MS, 1.0, 0, 1)])))
        async with running_sink(kafka, tables, topic, MINUTES, target) as first:
            await first.catch_up()
        publish(kafka, topic, encoded(MINUTES, minute_columns([("b", TODAY_MS, 2.0, 0, 2)])))
        async with running_sink(kafka, tables, topic, MINUTES, target, group=first.group) as second:
            await second.catch_up()
            assert second.sink.writer.counts.rows == 1
    assert {k[0]: v[0] for k, v in means(tables).items()} == {"a": 1.0, "b": 2.0}


async def test_lists_are_replaced_as_a_whole(kafka: KafkaSettings, tables: CassandraSettings) -> None:
    month = {"window_start": longs([TODAY_MS, TODAY_MS]), "window_end": longs([TODAY_MS + 3_600_000] * 2)}
    columns = {
        "network": spans_from_strings(["n", "n"]),
        **month,
        "sum": doubles([3, 5]),
        "top": string_lists([["a", "b", "c"], ["ä", ""]]),
        "top_counts": double_lists([[3, 2, 1], [4, 1]]),
        "duplicates": longs([0, 0]),
        "final": longs([0, 1]),
        "generation": longs([0, 0]),
        "source_partition": longs([0, 0]),
        "source_offset": longs([1, 2]),
    }
    values = encoded(TRENDING_HOUR.result_topic, columns)
    with fresh_topic(kafka) as topic:
        target = result_target(TRENDING_HOUR.table)
        async with running_sink(kafka, tables, topic, TRENDING_HOUR.result_topic, target) as running:
            for value in [*values, values[0], values[1]]:
                publish(kafka, topic, [value])
                await running.catch_up()
    [row] = in_table(tables, "trending_hour")
    assert (row["top"], row["top_counts"], row["final"]) == (["ä", ""], [4.0, 1.0], True)


async def test_raw_readings_are_one_row_per_identity(kafka: KafkaSettings, tables: CassandraSettings) -> None:
    columns = {
        "sensor_id": spans_from_strings(["a"] * 4),
        "site": spans_from_strings(["here"] * 4),
        "metric": spans_from_strings(["t"] * 4),
        "event_time": longs([TODAY_MS] * 4),
        "value": doubles([1.5, 1.5, 2.5, 2.5]),
        "unit": spans_from_strings([None] * 4),
        "sequence": longs([7, 7, 0, 0], np.array([True, True, False, False])),
    }
    with fresh_topic(kafka) as topic:
        publish(kafka, topic, encoded("iot.readings", columns))
        async with running_sink(kafka, tables, topic, "iot.readings", readings_target(30)) as running:
            await running.catch_up()
    found = in_table(tables, "sensor_readings")
    assert [(r["event_id"], r["value"], r["sequence"], r["unit"]) for r in found] == [
        ("s7", 1.5, 7, None),
        ("v2.5", 2.5, None, None),
    ]
    assert {r["event_time"] for r in found} == {TODAY_MS}


def test_a_table_that_is_missing_or_declared_otherwise_is_refused_with_both_keys(tables: CassandraSettings) -> None:
    session = connect(tables, "write")
    try:
        with pytest.raises(SinkError, match=r"has no table sensor_second; it has .*sensor_minute"):
            plan_table(session, tables.keyspace, Table("sensor_second", ("sensor_id",)))
        with pytest.raises(SinkError, match=r"primary key \(\(sensor_id, metric, day\), window_start\), declared is"):
            plan_table(session, tables.keyspace, Table("sensor_minute", ("sensor_id",)))
        session.execute(
            f"CREATE TABLE {tables.keyspace}.loose (k text, day date, window_start timestamp, top list<text>, "
            "PRIMARY KEY ((k, day), window_start))",
            timeout=60,
        )
        with pytest.raises(SinkError, match=r"column top of .*loose is list<text>"):
            plan_table(session, tables.keyspace, Table("loose", ("k",)))
    finally:
        session.cluster.shutdown()


def test_a_table_whose_columns_differ_from_its_rows_is_refused_before_anything_is_read(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    with connected(tables, "write", keyspace=tables.keyspace) as session:
        session.execute("ALTER TABLE network_minute ADD median double", timeout=60)
        session.execute("ALTER TABLE hashtag_minute DROP distinct", timeout=60)
    for pipeline, message in (
        (NETWORK_MINUTE, r"network_minute has a column median, its rows have not"),
        (HASHTAG_MINUTE, r"rows of fluvial.hashtag_minute have distinct, table .*hashtag_minute has not"),
    ):
        topic = pipeline.result_topic
        session = connect(tables, "write")
        try:
            with pytest.raises(SinkError, match=message):
                Sink(
                    kafka,
                    SinkSettings(),
                    tables,
                    session,
                    [SinkTopic(topic, result_target(pipeline.table), decoder(topic), set_aside)],
                )
        finally:
            close(session)


async def test_a_second_sink_that_joins_in_the_middle_shares_the_work_and_nothing_is_lost(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    rows: list[Row] = [(f"s{i % 500}", TODAY_MS - i // 500 * MINUTE_MS, float(i), 0, i) for i in range(20_000)]
    target = result_target(SENSOR_MINUTE.table)
    with fresh_topic(kafka, 2) as topic:
        async with running_sink(kafka, tables, topic, MINUTES, target, partitions=2) as first:
            for partition in (0, 1):
                publish(kafka, topic, encoded(MINUTES, minute_columns(rows[partition:10_000:2])), partition)
            await eventually(lambda: first.sink.writer.counts.rows > 0)
            group = first.group
            async with running_sink(kafka, tables, topic, MINUTES, target, partitions=2, group=group) as second:
                await eventually(lambda: len(first.sink.app.consumer.assignment()) == 1, 60)
                for partition in (0, 1):
                    publish(kafka, topic, encoded(MINUTES, minute_columns(rows[10_000 + partition :: 2])), partition)
                await second.catch_up(60)
                assert second.sink.writer.counts.rows > 0
    assert means(tables) == newest(rows)


async def test_a_column_that_is_added_while_the_sink_runs_does_not_disturb_it(
    kafka: KafkaSettings, tables: CassandraSettings
) -> None:
    target = result_target(SENSOR_MINUTE.table)
    with fresh_topic(kafka) as topic, connected(tables, "write", keyspace=tables.keyspace) as session:
        async with running_sink(kafka, tables, topic, MINUTES, target) as running:
            publish(kafka, topic, encoded(MINUTES, minute_columns([("a", TODAY_MS, 1.0, 0, 1)])))
            await running.catch_up()
            # Cassandra forgets the prepared statements of a table that changes.
            session.execute("ALTER TABLE sensor_minute ADD note text", timeout=60)
            publish(kafka, topic, encoded(MINUTES, minute_columns([("b", TODAY_MS, 2.0, 0, 2)])))
            await running.catch_up()
        session.execute("ALTER TABLE sensor_minute DROP note", timeout=60)
    assert {k[0]: v[0] for k, v in means(tables).items()} == {"a": 1.0, "b": 2.0}
