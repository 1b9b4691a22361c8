"""`fluvial query` on a real Cassandra: rows over several buckets, newest or oldest first, in every format."""

import asyncio
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.ipc
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from fluvial.cassandra import connect
from fluvial.cli import build_app
from fluvial.errors import FluvialError
from fluvial.settings import CassandraSettings
from fluvial.sinks.rows import row_batches
from fluvial.sinks.tables import plan_table
from fluvial.sinks.targets import result_target
from fluvial.sinks.writer import CassandraWriter
from fluvial.stream_apps.shipped import SENSOR_MINUTE
from support.sinking import minute_columns, shipped_tables

pytestmark = pytest.mark.integration

# Three days, every quarter of an hour, ending at midnight.
END = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
STARTS = [END - timedelta(minutes=15 * (i + 1)) for i in range(3 * 96)]


@pytest.fixture(scope="module")
def tables(cassandra: CassandraSettings) -> Iterator[CassandraSettings]:
    with shipped_tables(cassandra) as settings:
        yield settings


@pytest.fixture(scope="module", autouse=True)
def rows(tables: CassandraSettings) -> None:
    ms = [int(t.timestamp() * 1000) for t in STARTS]
    written = [("a b", t, float(i), 0, i) for i, t in enumerate(ms)] + [("other", ms[0], 0.5, 0, 1)]
    session = connect(tables, "write")
    columns, stamps = result_target(SENSOR_MINUTE.table).rows(minute_columns(written))
    plan = plan_table(session, tables.keyspace, SENSOR_MINUTE.table)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    made = row_batches(plan, columns, np.arange(len(written)), stamps, now_ms=now_ms, rows_per_batch=100)

    async def write() -> None:
        await CassandraWriter(session).write(made)

    asyncio.run(write())
    session.cluster.shutdown()


@pytest.fixture
def run(tables: CassandraSettings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLUVIAL_CASSANDRA__CONTACT_POINTS", tables.contact_points)
    monkeypatch.setenv("FLUVIAL_CASSANDRA__PORT", str(tables.port))
    monkeypatch.setenv("FLUVIAL_CASSANDRA__KEYSPACE", tables.keyspace)
    monkeypatch.setenv("FLUVIAL_CASSANDRA__LOCAL_DATACENTER", tables.local_datacenter)

    def query(*arguments: str) -> Result:
        result = CliRunner().invoke(build_app(), ["query", *arguments], catch_exceptions=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return query


def rfc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def means(result: Result) -> list[float]:
    return [json.loads(line)["mean"] for line in result.stdout.splitlines()]


KEY = ("sensor_minute", "a b", "temperature")


def test_rows_of_all_buckets_come_newest_first(run) -> None:
    found = run(*KEY, "--from", rfc(STARTS[-1]), "--to", rfc(END), "--format", "json")
    assert means(found) == [float(i) for i in range(len(STARTS))]


def test_or_oldest_first_and_only_so_many(run) -> None:
    found = run(*KEY, "--from", "-5d", "--to", rfc(END), "--format", "json", "--order", "oldest", "--limit", "100")
    assert means(found) == [float(i) for i in reversed(range(len(STARTS)))][:100]


def test_a_range_of_many_years_is_read_as_well(run) -> None:
    found = run(*KEY, "--from", "2015-01-01", "--format", "json", "--order", "oldest")
    assert means(found) == [float(i) for i in reversed(range(len(STARTS)))]


def test_the_range_includes_its_begin_and_not_its_end(run) -> None:
    found = run(*KEY, "--from", rfc(STARTS[100]), "--to", rfc(STARTS[98]), "--format", "json")
    assert means(found) == [99.0, 100.0]


def test_the_latest_rows_are_found_without_a_range(run) -> None:
    assert means(run(*KEY, "--latest", "100", "--format", "json")) == [float(i) for i in range(100)]
    assert means(run(*KEY, "--latest", "2", "--to", rfc(STARTS[200]), "--format", "json")) == [201.0, 202.0]


def test_binary_formats_go_to_stdout_or_a_file(run, tmp_path) -> None:
    arrow = run(*KEY, "--latest", "10", "--format", "arrow")
    assert pyarrow.ipc.open_stream(arrow.stdout_bytes).read_all().num_rows == 10
    path = tmp_path / "rows.parquet"
    told = run(*KEY, "--latest", "10", "--format", "parquet", "--output", str(path))
    found = pyarrow.parquet.read_table(io.BytesIO(path.read_bytes()))
    assert found.column("window_start").to_pylist() == STARTS[:10]
    assert found.column_names[:8] == [
        "sensor_id",
        "metric",
        "day",
        "window_start",
        "window_end",
        "count",
        "sum",
        "mean",
    ]
    assert (told.stdout, told.stderr.strip()) == ("", f"10 rows written to {path}.")


def test_a_plot_is_drawn(run) -> None:
    drawn = run(*KEY, "--latest", "288", "--plot").stdout
    assert "sensor_minute a b temperature   ● mean" in drawn
    assert drawn.count("●") > 50


def test_only_the_named_columns_and_the_time_are_read(run) -> None:
    [row] = run(*KEY, "--latest", "1", "--columns", "p95,count", "--format", "json").stdout.splitlines()
    assert list(json.loads(row)) == ["window_start", "p95", "count"]


def test_tables_are_listed_with_their_keys(run) -> None:
    assert "sensor_minute    SENSOR_ID METRIC" in run("tables").stdout.splitlines()


def test_a_key_without_rows_says_so_and_names_others(run) -> None:
    found = run("sensor_minute", "nobody", "temperature", "--from", "-1h")
    assert found.stdout == ""
    assert "No rows of sensor_minute for nobody temperature from" in found.stderr
    assert "Keys that exist: " in found.stderr
    assert "other temperature" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sensor_second", "a", "b", "--from", "-1h"), r"has no table sensor_second; its tables are .*sensor_minute"),
        (("sensor_minute", "a b", "--from", "-1h"), r"given 1 key; keys that exist: .*; fluvial query sensor_minute"),
        (KEY, r"needs a range of time; fluvial query sensor_minute a b temperature --from -1h, or --latest 20"),
        ((*KEY, "--from", "-1h", "--latest", "3"), r"exclude each other"),
        ((*KEY, "--from", "tuesday"), r"'tuesday' is no time"),
        ((*KEY, "--latest", "1", "--columns", "median"), r"has no column median; its columns are sensor_id"),
        ((*KEY, "--from", "-1h", "--plot", "--format", "csv"), r"both go to stdout; write the data to a file"),
    ],
)
def test_mistakes_are_answered_with_what_exists(run, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(FluvialError, match=message):
        run(*arguments)
