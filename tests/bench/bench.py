"""One run of the bench: its servers, its full topics, and the rows that come of it."""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import load
from processes import Catching, Run, run
from spans import Span

from fluvial.cluster import ClusterSpec, LocalCluster, Step
from fluvial.settings import Settings

# The measured processes get one thread for numpy's linear algebra, which none of them uses.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
WARM_UP_SHARE = 0.2
SENSORS = {"1k": 1_000, "100k": 100_000}
# What measured processes leave in Kafka; the full topics are named otherwise and kept.
LEFT_BEHIND = ("bench-", "fluvial.bench_")


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table: ``events`` in ``seconds`` of wall time, by processes that peaked at ``peak_mb``.

    ``whole`` is the same with the warm-up, from the first event on.
    """

    name: str
    events: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    note: str = ""
    whole: Span | None = None

    @property
    def events_per_second(self) -> float:
        """Events per second of wall time."""
        return self.events / self.seconds

    @property
    def events_per_cpu_second(self) -> float:
        """Events per second of the measured processes' CPU time."""
        return self.events / self.cpu_seconds


def result_of(name: str, runs: Sequence[Run], note: str = "") -> Result:
    """Return the run of median wall speed as a row."""
    ordered = sorted(runs, key=lambda r: r.span.events_per_second)
    chosen = ordered[len(ordered) // 2]
    if len(runs) > 1:
        low, high = ordered[0].span.events_per_second, ordered[-1].span.events_per_second
        note = "; ".join(x for x in (note, f"median of {len(runs)}: {low:,.0f} to {high:,.0f} /s") if x)
    return Result(
        name, chosen.span.events, chosen.span.seconds, chosen.span.cpu_seconds, chosen.peak_mb, note, chosen.whole
    )


class Bench:
    """Servers of the bench's own, started when they are first needed, and stopped by `close`.

    ``events`` is how many a full topic has, ``repeats`` how often the quick cases are run.
    """

    def __init__(self, build: Path, events: int, repeats: int, say: Callable[[str], None]) -> None:
        self.build = build
        self.events = events
        self.repeats = repeats
        self.say = say
        self.stamp = str(int(time.time()))
        self._kafka = LocalCluster(build / "bench-kafka", ClusterSpec(brokers=1, nodes=0))
        self._cassandra = LocalCluster(build / "bench-cassandra", ClusterSpec(brokers=0, nodes=1, registry=False))
        self._running: set[str] = set()
        for left in ("bench-logs", "bench-state"):
            shutil.rmtree(build / left, ignore_errors=True)

    def kafka(self) -> Settings:
        """Return the settings of a running Kafka and registry, with no Cassandra beside them."""
        return self._only(self._kafka, self._cassandra)

    def cassandra(self) -> Settings:
        """Return the settings of a running Cassandra, with no Kafka beside it."""
        return self._only(self._cassandra, self._kafka)

    def close(self) -> None:
        """Stop the servers; the full topics stay for the next run."""
        for cluster in (self._kafka, self._cassandra):
            cluster.stop()

    def topic(self, size: str) -> str:
        """Return the topic of ``size`` sensors, filled if it was not yet."""
        name = f"bench.readings-{size}-{self.events}"
        settings = self.kafka()
        held = load.records_in(settings.kafka, name)
        if held != self.events:
            self.say(f"filling {name} with {self.events:,} events")
            load.delete_topics(settings.kafka, name)
            catalog = load.catalog_of(name, "bench_unused")
            load.provision(settings, catalog)
            asyncio.run(load.fill(settings, catalog, name, self.events, SENSORS[size]))
        return name

    def catch_up(self, name: str, commands: Sequence[Sequence[str]], events: int | None = None) -> Run:
        """Run processes until they have handled ``events`` events (None: all that a topic has).

        Raises:
            MeasuredFailedError, TooShortError: see `processes.run`.
        """
        events = events or self.events
        what = Catching(tuple(tuple(c) for c in commands), int(events * WARM_UP_SHARE), events)
        try:
            return run(what, self.log(name), ENVIRONMENT)
        finally:
            for prefix in LEFT_BEHIND:
                load.delete_topics(self.kafka().kafka, prefix)

    def log(self, name: str) -> Path:
        """Return where a case's processes write their errors."""
        folder = self.build / "bench-logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _only(self, wanted: LocalCluster, other: LocalCluster) -> Settings:
        """Start one cluster and stop the other: what is not measured must not take the cores."""
        if str(wanted.directory) not in self._running:
            other.stop()
            self._running = {str(wanted.directory)}
            wanted.start(self._step)
        return wanted.settings

    def _step(self, step: Step) -> None:
        self.say(f"{step.subject}: {step.message}")
