import report
from bench import Result
from spans import Span

WORKER = Result("worker-1k", 2_000_000, 1.0, 1.0, 400.0)
FAUST = Result("faust", 10_000, 2.0, 2.0, 80.0, "a note")


def results(*rows: Result) -> dict[str, Result]:
    return {r.name: r for r in rows}


def test_every_row_has_its_rates_and_its_ratio_to_the_worker() -> None:
    [worker, faust] = report.as_json(results(WORKER, FAUST), {})

    assert worker["events_per_second"] == 2_000_000
    assert worker["ratio"] == 1.0
    assert faust == {
        "name": "faust",
        "events_per_second": 5_000,
        "events_per_cpu_second": 5_000,
        "peak_mb": 80.0,
        "ratio": 0.0025,
        "ratio_per_cpu_second": 0.0025,
        "events": 10_000,
        "seconds": 2.0,
        "cpu_seconds": 2.0,
        "note": "a note",
    }


def test_what_was_skipped_is_listed_with_its_reason_and_without_figures() -> None:
    [row] = report.as_json({}, {"quix": "cannot be installed"})

    assert row["name"] == "quix"
    assert row["skipped"] == "cannot be installed"
    assert row["events_per_second"] is None


def test_without_the_worker_there_is_no_ratio() -> None:
    [row] = report.as_json(results(FAUST), {})

    assert row["ratio"] is None


def test_only_the_bars_of_rows_that_were_measured_are_judged() -> None:
    text = report.bars(results(WORKER, FAUST))

    assert "met     worker-1k ÷ faust: 400 (≥ 300)" in text
    assert "flink" not in text


def test_a_bar_that_is_missed_says_so_and_a_peak_has_an_upper_bound() -> None:
    text = report.bars(results(Result("worker-1k", 1_000_000, 1.0, 1.0, 501.0)))

    assert "MISSED  worker-1k, MB at its peak: 501 (≤ 500)" in text
    assert "MISSED  worker-1k, events per second: 1e+06 (≥ 1,800,000)" in text


def test_a_row_also_tells_its_rates_with_the_warm_up() -> None:
    row = Result("flink", 800, 1.0, 2.0, 900.0, whole=Span(1_000, 2.0, 4.0))

    assert report.table([row], None).splitlines()[1].split() == ["flink", "800", "400", "900", "500", "250"]
    assert report.as_json(results(row), {})[0]["events_per_cpu_second_with_warm_up"] == 250


def test_the_table_has_one_line_per_row_under_its_titles() -> None:
    lines = report.table([WORKER, FAUST], WORKER).splitlines()

    assert len(lines) == 3
    assert lines[2].split() == ["faust", "5,000", "5,000", "80", "0.0025", "0.0025", "a", "note"]
