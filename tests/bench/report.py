"""The table, the bars and ``bench.json``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import Result

Results = Mapping[str, Result]
BASE = "worker-1k"
PER_ROW = "sink-per-row"
NAME_WIDTH, WIDTH = 19, 14


@dataclass(frozen=True, slots=True)
class Bar:
    """What must hold: ``found`` of the rows named in ``needs`` is at least (or, with ``at_most``, at most) a bound."""

    text: str
    needs: tuple[str, ...]
    found: Callable[[Results], float]
    at_least: float = 0.0
    at_most: float = float("inf")

    def holds(self, results: Results) -> bool:
        """Tell whether the bar is met."""
        return self.at_least <= self.found(results) <= self.at_most


def _wall(name: str) -> Callable[[Results], float]:
    return lambda results: results[name].events_per_second


def _per_cpu(name: str) -> Callable[[Results], float]:
    return lambda results: results[name].events_per_cpu_second


def _times(name: str, other: str) -> Callable[[Results], float]:
    return lambda results: results[name].events_per_second / results[other].events_per_second


def _times_per_cpu(name: str, other: str) -> Callable[[Results], float]:
    return lambda results: results[name].events_per_cpu_second / results[other].events_per_cpu_second


def _peak(name: str) -> Callable[[Results], float]:
    return lambda results: results[name].peak_mb


BARS = (
    Bar("worker-1k, events per CPU second", ("worker-1k",), _per_cpu("worker-1k"), at_least=1.4e6),
    Bar("worker-1k, events per second", ("worker-1k",), _wall("worker-1k"), at_least=1.8e6),
    Bar("worker-100k, events per CPU second", ("worker-100k",), _per_cpu("worker-100k"), at_least=0.7e6),
    Bar("worker-1k, MB at its peak", ("worker-1k",), _peak("worker-1k"), at_most=500),
    Bar("worker-100k, MB at its peak", ("worker-100k",), _peak("worker-100k"), at_most=500),
    Bar("worker-1k ÷ faust", ("worker-1k", "faust"), _times("worker-1k", "faust"), at_least=300),
    Bar("worker-1k ÷ kafka-streams", ("worker-1k", "kafka-streams"), _times("worker-1k", "kafka-streams"), at_least=5),
    Bar("worker-1k ÷ flink", ("worker-1k", "flink"), _times("worker-1k", "flink"), at_least=2),
    Bar("worker-1k ÷ flink, per CPU second", ("worker-1k", "flink"), _times_per_cpu("worker-1k", "flink"), at_least=3),
    Bar("import-parquet, events per second", ("import-parquet",), _wall("import-parquet"), at_least=300e3),
    Bar("import-csv, events per second", ("import-csv",), _wall("import-csv"), at_least=150e3),
    Bar("gateway-avro, events per second", ("gateway-avro",), _wall("gateway-avro"), at_least=150e3),
    Bar("gateway-typed, events per second", ("gateway-typed",), _wall("gateway-typed"), at_least=60e3),
    Bar("gateway-ndjson, events per second", ("gateway-ndjson",), _wall("gateway-ndjson"), at_least=40e3),
    Bar("sink, rows per second", ("sink",), _wall("sink"), at_least=80e3),
    Bar("sink ÷ sink-per-row", ("sink", PER_ROW), _times("sink", PER_ROW), at_least=10),
)


def as_json(results: Results, skipped: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows for ``bench.json``; what was skipped has its reason and no figures.

    ``ratio`` and ``ratio_per_cpu_second`` are to worker-1k, of the same run.
    """
    wall, cpu = _rates(results.get(BASE))
    rows: list[dict[str, Any]] = []
    for r in results.values():
        row: dict[str, Any] = {
            "name": r.name,
            "events_per_second": round(r.events_per_second),
            "events_per_cpu_second": round(r.events_per_cpu_second),
            "peak_mb": round(r.peak_mb, 1),
            "ratio": _ratio(r.events_per_second, wall),
            "ratio_per_cpu_second": _ratio(r.events_per_cpu_second, cpu),
            "events": r.events,
            "seconds": round(r.seconds, 3),
            "cpu_seconds": round(r.cpu_seconds, 3),
        }
        if r.whole:
            row["events_per_second_with_warm_up"] = round(r.whole.events_per_second)
            row["events_per_cpu_second_with_warm_up"] = round(r.whole.events_per_cpu_second)
        if r.note:
            row["note"] = r.note
        rows.append(row)
    figures = ("events_per_second", "events_per_cpu_second", "peak_mb", "ratio", "ratio_per_cpu_second")
    rows += [{"name": name, **dict.fromkeys(figures), "skipped": why} for name, why in skipped.items()]
    return rows


def table(results: Sequence[Result], base: Result | None) -> str:
    """Return the rows as text, one line each under a line of titles."""
    titles = ("events/s", "per CPU s", "peak MB", "× worker-1k", "per CPU s", "with warm-up", "per CPU s")
    lines = [" " * NAME_WIDTH + "".join(t.rjust(WIDTH) for t in titles)]
    wall, cpu = _rates(base)
    for r in results:
        cells = [f"{r.events_per_second:,.0f}", f"{r.events_per_cpu_second:,.0f}", f"{r.peak_mb:,.0f}"]
        cells += [_short(_ratio(r.events_per_second, wall)), _short(_ratio(r.events_per_cpu_second, cpu))]
        cells += [f"{r.whole.events_per_second:,.0f}", f"{r.whole.events_per_cpu_second:,.0f}"] if r.whole else ["", ""]
        lines.append((r.name.ljust(NAME_WIDTH) + "".join(c.rjust(WIDTH) for c in cells) + f"  {r.note}").rstrip())
    return "\n".join(lines)


def bars(results: Results) -> str:
    """Return one line per bar whose rows are there."""
    lines = []
    for bar in BARS:
        if all(name in results for name in bar.needs):
            bound = f"≥ {bar.at_least:,.10g}" if bar.at_least else f"≤ {bar.at_most:,.10g}"
            lines.append(
                f"{'met   ' if bar.holds(results) else 'MISSED'}  {bar.text}: {bar.found(results):,.4g} ({bound})"
            )
    return "\n".join(lines)


def _rates(base: Result | None) -> tuple[float | None, float | None]:
    return (None, None) if base is None else (base.events_per_second, base.events_per_cpu_second)


def _ratio(figure: float, base: float | None) -> float | None:
    return None if base is None else float(f"{figure / base:.4g}")


def _short(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.4g}"
