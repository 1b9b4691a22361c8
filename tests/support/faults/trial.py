"""A trial: a load, real processes, faults drawn from a seed, and what must hold when everything has settled.

A row of the matrix is a `Scenario`; its ``faults`` are a function that is given the running `Trial` and does its worst:

    def kill_workers(t: Trial) -> None:
        for _ in range(t.rng.randint(2, 3)):
            t.wait(0.5, 3.0)
            t.kill(t.rng.choice(t.workers))

    outcome = run_trial(Scenario(1, "SIGKILL a worker", kill_workers), seed=17, settings=…, folder=tmp_path)
    assert not outcome.violations

It may also use ``t.cluster`` (a `LocalCluster` of the trial's own, when the caller gave one) and must leave all servers
running. Everything that a seed decides is drawn from ``t.rng``.
"""

import contextlib
import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import AdminClient

from fluvial.cassandra import connected
from fluvial.cluster import LocalCluster
from fluvial.errors import FluvialError
from fluvial.schemas.avro import DatumWriter
from fluvial.schemas.provision import init
from fluvial.schemas.registry import Registry
from fluvial.settings import KafkaSettings, Settings
from fluvial.stream_apps.plan import plan_topics
from fluvial.transport.connection import librdkafka_config
from support.faults.declared import FILE, Declared, declare
from support.faults.feeder import Feeder
from support.faults.invariants import (
    answers_of,
    check_aside,
    check_books,
    check_log,
    check_rekeyed,
    check_tables,
    read_topic,
)
from support.faults.load import Load, Shape
from support.faults.processes import Member, Processes
from support.faults.watch import Groups, VersionReader
from support.proxy import Proxy

SESSION_SECONDS = KafkaSettings().session_seconds
RECOVERY_SECONDS = 30.0
DRAIN_SECONDS = 150.0
START_SECONDS = 300.0
PEAK_MB = 1200.0
LOOK_SECONDS = 0.1
KEYSPACE = "faults"


@dataclass(frozen=True)
class Scenario:
    """A row of the fault matrix. ``environment`` adds settings to every process; ``tolerate`` drops violations.

    ``posts`` is the share of trials that also have the rekeyed stages. Violations that begin with one of ``tolerate``
    are what the row provokes on purpose (a worker that must stop, a recovery that waits for a server). ``proxied`` puts
    `Trial.proxies` between the cluster (with a proxied listener) and all processes, the producer too.
    """

    row: int
    title: str
    faults: Callable[["Trial"], None]
    shape: Shape = Shape()  # noqa: RUF009 -- frozen
    workers: int = 2
    sinks: int = 1
    partitions: int = 3
    posts: float = 0.4
    environment: Mapping[str, str] = field(default_factory=dict)
    tolerate: tuple[str, ...] = ()
    recovery_seconds: float = RECOVERY_SECONDS
    proxied: bool = False


@dataclass
class Outcome:
    """What came of a trial; ``recoveries`` are in seconds, ``peak_mb`` is the largest process's resident memory."""

    row: int
    title: str
    seed: int
    events: int = 0
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    seconds: float = 0.0


class Trial:
    """A running trial, as a scenario's faults see it."""

    def __init__(
        self, scenario: Scenario, seed: int, settings: Settings, folder: Path, cluster: LocalCluster | None
    ) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"{scenario.row}/{seed}")
        self.name = f"r{scenario.row}s{seed}_{uuid.uuid4().hex[:6]}"
        self.folder = folder / self.name
        self.cluster = cluster
        self.outcome = Outcome(scenario.row, scenario.title, seed)
        kafka = settings.kafka.model_copy(update={"partitions": scenario.partitions})
        worker = settings.worker.model_copy(update={"group": f"{self.name}-worker"})
        sink = settings.sink.model_copy(update={"group": f"{self.name}-sink"})
        cassandra = settings.cassandra.model_copy(update={"keyspace": KEYSPACE})
        self.settings = settings.model_copy(
            update={"kafka": kafka, "worker": worker, "sink": sink, "cassandra": cassandra}
        )
        self.workers = [f"worker-{i}" for i in range(1, scenario.workers + 1)]
        self.sinks = [f"sink-{i}" for i in range(1, scenario.sinks + 1)]
        self.restart_seconds = self.rng.choice((0.0, 0.0, 0.5, 2.0))
        self.begun = time.monotonic()
        # By name: kafka-1 …, cassandra-1.
        self.proxies: dict[str, Proxy] = {}
        # What the trial's processes connect to: the settings, or the proxies before them.
        self.reached = self.settings
        self.processes = Processes(self.folder, self._killed)
        self.declared: Declared
        self.feeder: Feeder
        self.groups: Groups

    # What a scenario's faults may do.

    def wait(self, least: float, most: float | None = None) -> None:
        """Let a while pass, drawn between the two, while processes are watched and killed ones started again."""
        self._until(lambda: False, least if most is None else self.rng.uniform(least, most))

    def kill(self, name: str) -> None:
        """SIGKILL a process; it is started again after the trial's delay, and its recovery measured."""
        self.note(f"kill {name}")
        self.processes.send(name, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """SIGSTOP a process."""
        self.note(f"pause {name}")
        self.processes.send(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT a process."""
        self.note(f"resume {name}")
        self.processes.send(name, signal.SIGCONT)

    def restart(self, name: str, failpoints: str = "", **environment: str) -> None:
        """Stop a process in order and start it again, with failpoints (this time) and settings (from now on)."""
        self.stop(name)
        self.start(name, failpoints, **environment)

    def stop(self, name: str) -> None:
        """SIGTERM a process, as who will start it again soon, and wait for its end."""
        self.note(f"stop {name}")
        self.processes.stop(name)

    def leave(self, name: str) -> None:
        """SIGINT a process: it leaves its group for good. Wait for its end."""
        self.note(f"leave {name}")
        self.processes.stop(name, signal.SIGINT)

    def start(self, name: str, failpoints: str = "", **environment: str) -> None:
        """Start a process that does not run."""
        self.note(f"start {name} {failpoints}".rstrip())
        member = self.processes.members[name]
        member.environment = {**member.environment, **environment}
        member.deaths = 0
        self.processes.start(name, failpoints)

    def add_worker(self, name: str) -> None:
        """Start one more worker, a passing member of the group: end it with `leave`."""
        self.note(f"join {name}")
        self.processes.add(name, ("worker",), self._environment())
        self.processes.start(name)

    def dies(self, name: str, seconds: float = 40.0) -> bool:
        """Wait until a process has died since it was started, and say whether it has."""
        died = self._until(lambda: self.processes.members[name].deaths > 0, seconds)
        self.note(f"{name} {'died' if died else 'did not die'}")
        return died

    def expect_end(self, name: str) -> None:
        """From now on the process may end by itself, and stays down then."""
        self.processes.members[name].may_end = True

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition, and say whether it came true."""
        return self._until(condition, seconds)

    def note(self, fault: str) -> None:
        """Write down a fault, with its time."""
        self.outcome.faults.append(f"{time.monotonic() - self.begun:.1f} {fault}")

    def violated(self, what: str) -> None:
        """Write down a violation of an invariant."""
        self.outcome.violations.append(what)

    # The course of a trial.

    def run(self) -> Outcome:
        """Run it from end to end; whatever is left of it is removed."""
        with contextlib.ExitStack() as stack:
            if self.scenario.proxied:
                self._put_proxies_between(stack)
            return self._run()

    def _run(self) -> Outcome:
        reader: VersionReader | None = None
        try:
            self._prepare()
            self._reached("prepared")
            reader = VersionReader(self.settings.cassandra, self.declared.pipelines)
            for name in (*self.workers, *self.sinks):
                self.processes.start(name)
            reader.start()
            self.feeder.start()
            if not self._until(self._works, START_SECONDS):
                self.violated(f"I6: nothing is handled {START_SECONDS:.0f} s after the start")
            self._reached("at work")
            self.feeder.go_on.set()
            self.scenario.faults(self)
            self._reached("faults over")
            self._drain()
            self._reached("drained")
            for name in [n for n in self.processes.members if n not in self.sinks] + self.sinks:
                self.processes.stop(name)
            self._reached("stopped")
            reader.stop()
            self._check(reader)
        finally:
            self.processes.close()
            if reader is not None and reader.is_alive():
                reader.stop()
            self.feeder.stopped.set()
            self.feeder.go_on.set()
            self._remove()
        self.outcome.seconds = time.monotonic() - self.begun
        return self.outcome

    def _put_proxies_between(self, stack: contextlib.ExitStack) -> None:
        assert self.cluster is not None
        for server in self.cluster.status():
            if "proxied" in server.ports:
                proxy = Proxy(("127.0.0.1", server.ports["proxied"]), server.ports["proxy"])
                self.proxies[server.name] = stack.enter_context(proxy)
        c = self.settings.cassandra
        proxy = stack.enter_context(Proxy((c.contact_points.split(",")[0], c.port)))
        brokers = ",".join(f"127.0.0.1:{p.port}" for p in self.proxies.values())
        self.proxies["cassandra-1"] = proxy
        kafka = self.settings.kafka.model_copy(update={"brokers": brokers})
        cassandra = c.model_copy(update={"contact_points": "127.0.0.1", "port": proxy.port})
        self.reached = self.settings.model_copy(update={"kafka": kafka, "cassandra": cassandra})

    def _prepare(self) -> None:
        s = self.settings
        self.declared = declare(self.name, self.folder, posts=self.rng.random() < self.scenario.posts)
        report = init(s.kafka, s.registry, s.cassandra, s.worker.group, self.declared.catalog)
        assert report.ok, report
        topics = frozenset(plan_topics(self.declared.pipelines))
        results = frozenset(p.result_topic for p in self.declared.pipelines)
        self.groups = Groups(s.kafka, {s.worker.group: topics, s.sink.group: results})
        schemas = {name: self.declared.catalog.schema_of(name) for name in self._sources()}
        with Registry(s.registry) as registry:
            writers = [(n, DatumWriter(x, registry.schema_id(f"{n}-value", x))) for n, x in schemas.items()]
        load = Load(self.rng, self.scenario.shape, s.kafka.partitions, writers[0], writers[1] if writers[1:] else None)
        self.feeder = Feeder(self.reached.kafka, list(load.chunks()))
        for name in self.workers:
            self.processes.add(name, ("worker",), self._environment())
        for name in self.sinks:
            self.processes.add(name, ("sink",), self._environment())

    def _sources(self) -> list[str]:
        return [self.declared.readings, *([self.declared.posts] if self.declared.posts else [])]

    def _environment(self) -> dict[str, str]:
        s = self.reached
        ours = {
            "FLUVIAL_KAFKA__BROKERS": s.kafka.brokers,
            "FLUVIAL_REGISTRY__URL": s.registry.url,
            "FLUVIAL_CASSANDRA__CONTACT_POINTS": s.cassandra.contact_points,
            "FLUVIAL_CASSANDRA__PORT": str(s.cassandra.port),
            "FLUVIAL_CASSANDRA__KEYSPACE": s.cassandra.keyspace,
            "FLUVIAL_WORKER__GROUP": s.worker.group,
            "FLUVIAL_WORKER__DECLARATIONS": str(self.folder / FILE),
            "FLUVIAL_WORKER__PIPELINES": self.declared.names,
            "FLUVIAL_WORKER__CHECKPOINT_SECONDS": "1",
            "FLUVIAL_SINK__GROUP": s.sink.group,
        }
        others = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_") or k == "FLUVIAL_CACHE_DIR"}
        return others | ours | dict(self.scenario.environment)

    def _killed(self, member: Member) -> None:
        s = self.settings
        self.groups.begin(member.name, s.worker.group if member.name in self.workers else s.sink.group)

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not (done := condition()) and time.monotonic() < deadline:
            self.processes.look(self.restart_seconds)
            try:
                self.groups.look()
            except FluvialError as e:
                self.note(f"(Kafka does not answer: {e.message})")
            time.sleep(LOOK_SECONDS)
        return done

    def _works(self) -> bool:
        return all(any(p.committed > 0 for p in self.groups.positions(g)) for g in self.groups.topics)

    def _reached(self, phase: str) -> None:
        self.outcome.phases[phase] = round(time.monotonic() - self.begun, 1)

    def _drain(self) -> None:
        if not self._until(lambda: not self.feeder.is_alive(), DRAIN_SECONDS):
            self.violated(f"I6: not everything was acknowledged within {DRAIN_SECONDS:.0f} s")
            self.feeder.stopped.set()
        if self.feeder.error is not None:
            self.violated(f"I1: publishing failed: {self.feeder.error!r}")
        last: tuple[int, ...] = ()

        def settled() -> bool:
            nonlocal last
            try:
                lag, ends = self.groups.lag()
            except FluvialError:
                return False
            # Twice: what is handled between two questions may have made more to handle.
            same, last = ends == last, ends if lag == 0 else ()
            return lag == 0 and same

        if not self._until(settled, DRAIN_SECONDS):
            lag, _ = self.groups.lag()
            self.violated(f"I6: {lag} records are not handled after {DRAIN_SECONDS:.0f} s")
        self.groups.look()

    def _check(self, reader: VersionReader) -> None:
        s, o = self.settings, self.outcome
        o.events = self.feeder.journal.events
        for topic in self._sources():
            o.violations += check_log(self.feeder.journal, topic, read_topic(s.kafka, topic))
        answers = answers_of(s, self.declared.pipelines, s.worker.generation)
        o.rows = sum(len(a.rows) for answer in answers.values() for a in answer.values())
        o.violations += check_tables(s, self.declared.pipelines, answers)
        o.violations += reader.violations[:10]
        if reader.rounds == 0:
            self.violated(f"I3: nothing could be read during the trial: {reader.unanswered[-1:]}")
        o.violations += check_books(s, self.declared.catalog, answers)
        o.violations += check_aside(s, self.declared.pipelines, answers)
        o.violations += check_rekeyed(s, self.declared.pipelines, answers)
        o.violations += self.processes.violations
        for r in self.groups.recoveries:
            if r.seconds is None:
                self.violated(f"I6: {r.name} did not recover")
            else:
                o.recoveries.append(round(r.seconds, 2))
                if r.seconds > self.scenario.recovery_seconds:
                    self.violated(f"I6: {r.name} took {r.seconds:.1f} s to recover")
        o.peak_mb = round(max(self.processes.peak_mb.values(), default=0.0), 1)
        if o.peak_mb > PEAK_MB:
            self.violated(f"I7: a process took {o.peak_mb:.0f} MiB")
        o.violations = [v for v in o.violations if not v.startswith(self.scenario.tolerate or ("\0",))]

    def _remove(self) -> None:
        """Delete topics and tables; a trial that failed keeps its logs."""
        s = self.settings
        names = [t.name for t in self.declared.catalog.topics] + [f"{s.worker.group}.checkpoints"]
        for future in AdminClient(librdkafka_config(s.kafka)).delete_topics(names).values():
            future.exception(30)
        with connected(s.cassandra, "write", keyspace=s.cassandra.keyspace) as session:
            for pipeline in self.declared.pipelines:
                session.execute(f"DROP TABLE IF EXISTS {pipeline.table.name}", timeout=60)
        if not self.outcome.violations and "FLUVIAL_FAULTS_KEEP" not in os.environ:
            shutil.rmtree(self.folder, ignore_errors=True)


def run_trial(
    scenario: Scenario, seed: int, settings: Settings, folder: Path, cluster: LocalCluster | None = None
) -> Outcome:
    """Run one trial of a scenario on the servers that the settings lead to."""
    return Trial(scenario, seed, settings, folder, cluster).run()
