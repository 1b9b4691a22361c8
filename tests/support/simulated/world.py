"""One simulated run: servers, services under a supervisor, devices that send, faults that happen, and its end."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from cassandra import ConsistencyLevel
from faust.types import TP

from fluvial.errors import PublishError
from support.simulated import product
from support.simulated.app import DrainError
from support.simulated.cassandra import CellsOfRow, FakeCassandra, Key, VersionWatch
from support.simulated.declared import Deployment, deployment
from support.simulated.groups import FencedError, Group
from support.simulated.kafka import FakeKafka, Stored, Weather
from support.simulated.loop import OUTSIDE, Process, StuckError, Unwinding, VirtualLoop
from support.simulated.plan import PARTITIONS, SINKS, WORKERS, Fault, Plan
from support.simulated.senders import Senders
from support.simulated.trace import Trace

Views = Mapping[str, Mapping[str, Mapping[Key, CellsOfRow]]]

RECOVERY_SECONDS = 240.0
CORRECTION_MS = 8_000
FAR_MS = 3_600_000


@dataclass(slots=True)
class Service:
    """A service and its present process; the supervisor starts it again whenever it ends unasked."""

    name: str
    kind: str
    generation: int
    process: Process | None = None
    app: Any = None
    wanted: bool = True
    started: int = 0
    restart_seconds: float = 2.0
    failures: list[BaseException] = field(default_factory=list)
    supervisor: "asyncio.Task[None] | None" = None


class World:
    """The run of a plan; `run` it, then ask `checks`."""

    def __init__(self, plan: Plan, trace: Trace, *, consistency: int = ConsistencyLevel.LOCAL_QUORUM) -> None:
        """Prepare; ``consistency`` is that of the sinks' writes."""
        self.plan = plan
        self.trace = trace
        self.loop = VirtualLoop(trace)
        trace.clock = self.loop.time
        self.rng = random.Random(plan.seed + 1)
        self.loop.executor_seconds = lambda: self.rng.uniform(0.001, 0.05)
        self.deployment: Deployment = deployment(plan.topology)
        self.corrected: Deployment = deployment(plan.topology, CORRECTION_MS)
        self.kafka = FakeKafka(self.loop, self.rng, plan.weather)
        for topic in (
            *self.deployment.plans,
            product.CHECKPOINTS,
            *(p.result_topic for p in self.deployment.pipelines),
        ):
            self.kafka.create(topic, PARTITIONS)
        for p in self.deployment.plans.values():
            self.kafka.create(p.late_topic, PARTITIONS)
            self.kafka.create(p.dead_letter_topic, PARTITIONS)
        self.cassandra = FakeCassandra(self.loop, self.rng, plan.mood, self.deployment.tables, consistency)
        self.services: list[Service] = []
        self.zombies: list[Process] = []
        self.generation = 0
        self.fetch_wait, self.fetch_most = plan.fetch_wait, plan.fetch_most
        self.healed = False
        self.senders = Senders(self.loop, self.kafka, plan, self.deployment)
        self.unexpected: list[str] = []
        self.stuck: str | None = None
        self.watch = VersionWatch(self.cassandra)
        #: What the tables showed in the end: to readers at ONE, at QUORUM, and on each replica after a repair.
        self.at_one: Views = {}
        self.at_quorum: Views = {}
        self.repaired: Views = {}
        self._groups: dict[str, Group] = {}
        self.processes: list[Process] = []

    def group(self, name: str) -> Group:
        """Return the consumer group of that name."""
        if name not in self._groups:
            self._groups[name] = Group(self.loop, self.rng, {t: len(logs) for t, logs in self.kafka.topics.items()})
            self._groups[name].start()
        return self._groups[name]

    def failpoint(self, name: str) -> bool:
        """Return whether the process that reached this place dies there."""
        return not self.healed and self.plan.failpoint > 0 and self.rng.random() < self.plan.failpoint

    def run(self) -> None:
        """Run it all."""
        with product.stand_ins():
            try:
                self.loop.run_until_complete(self._main())
            except (StuckError, TimeoutError) as e:
                self.stuck = f"{type(e).__name__}: {e}"
            finally:
                self.loop.end()

    # --- the course of a run

    async def _main(self) -> None:
        for i in range(WORKERS):
            self._start(f"worker{i}", "worker")
        for i in range(SINKS):
            self._start(f"sink{i}", "sink")
        self._start("gateway", "gateway")
        background = [
            asyncio.create_task(c) for c in (self._faults(), self.senders.tick(), self._reader(), self._correct())
        ]
        sending = asyncio.create_task(self.senders.send_all())
        await asyncio.sleep(self.plan.span)
        await self._heal()
        await asyncio.wait_for(sending, RECOVERY_SECONDS)
        await asyncio.gather(background[0], background[3])
        self.senders.close_windows()
        await self._quiet()
        for task in background:
            task.cancel()
        await self._stop_all()
        self.at_one, self.at_quorum = self.cassandra.views(1), self.cassandra.views(2)
        self.cassandra.repair()
        self.repaired = self.cassandra.views(1)

    async def _heal(self) -> None:
        self.trace.note("— everything heals —")
        self.healed = True
        self.fetch_wait, self.fetch_most = (1.0, 3.0), 60
        self.kafka.weather = Weather()
        self.kafka.stalled_until = 0.0
        self.cassandra.mood = type(self.cassandra.mood)()
        for replica in self.cassandra.replicas:
            replica.up = True
        for process in self.processes:
            if process.paused:
                process.resume()

    async def _quiet(self) -> None:
        """Wait until everything that was published has been handled and committed."""
        deadline = self.loop.time() + RECOVERY_SECONDS
        while self.loop.time() < deadline:
            await asyncio.sleep(2.0)
            behind = self._behind()
            if not behind:
                return
        self.stuck = f"after {RECOVERY_SECONDS:.0f} s without faults: {', '.join(behind)}"

    def _behind(self) -> list[str]:
        wanted = [(product.WORKERS_GROUP, list(self.deployment.plans))]
        wanted.append((product.SINKS_GROUP, [p.result_topic for p in self.deployment.pipelines]))
        return [
            f"{group} have {topic}[{p}] up to {self.group(group).committed.get(TP(topic, p), 0)} of {log.end}"
            for group, topics in wanted
            for topic in topics
            for p, log in enumerate(self.kafka.topics[topic])
            if self.group(group).committed.get(TP(topic, p), 0) != log.end
        ]

    async def _stop_all(self) -> None:
        for service in self.services:
            service.wanted = False
        for process in self.zombies:
            process.kill()
        ending = []
        for service in self.services:
            if service.kind == "gateway" and service.process is not None:
                service.process.kill()
            elif service.app is not None and service.process is not None and service.process.alive:
                service.app.stopping.set()
                ending.append(service.process.ended)
        if ending:
            await asyncio.wait(ending, timeout=90)
        if any(not e.done() for e in ending) and self.stuck is None:
            self.stuck = "a service did not stop within 90 s"

    # --- services

    def _start(self, name: str, kind: str) -> Service:
        service = Service(name, kind, self.generation)
        self.services.append(service)
        service.supervisor = self.loop.create_task(self._supervise(service), context=OUTSIDE.copy())
        return service

    async def _supervise(self, service: Service) -> None:
        while service.wanted:
            process = self._spawn(service)
            ended = await process.ended
            if service.process is not process:  # it was replaced, and somebody else looks after that
                return
            if ended is not None:
                self.trace.note(f"{process.name} ends with {ended!r}")
                if not isinstance(ended, PublishError | FencedError | Unwinding) and not (
                    isinstance(ended, DrainError) and process.was_paused
                ):
                    self.unexpected.append(f"{process.name} at {self.loop.time():.1f} s: {ended!r}")
                service.failures.append(ended)
            if service.wanted:
                await asyncio.sleep(service.restart_seconds)
                service.restart_seconds = 2.0

    def _spawn(self, service: Service) -> Process:
        service.started += 1
        process = Process(self.loop, f"{service.name}#{service.started}")
        process.world = self
        service.process = process
        self.processes.append(process)
        self.trace.note(f"{process.name} starts")
        mains: dict[str, Callable[[Service], Coroutine[Any, Any, None]]] = {
            "worker": self._worker,
            "sink": self._sink,
            "gateway": self._gateway,
        }
        process.start(lambda: mains[service.kind](service))
        return process

    async def _worker(self, service: Service) -> None:
        declared = self.corrected if service.generation else self.deployment
        made = product.worker(self.plan, declared, service.generation, self._instance(service))
        service.app = made.app
        await made.app.run()

    async def _sink(self, service: Service) -> None:
        made = product.sink(self.plan, self.deployment, self._instance(service))
        service.app = made.app
        await made.app.run()

    async def _gateway(self, service: Service) -> None:
        await self.senders.gateway()

    def _instance(self, service: Service) -> str | None:
        return service.name.rstrip("'") if self.plan.static else None

    # --- faults

    async def _faults(self) -> None:
        for fault in self.plan.faults:
            await asyncio.sleep(max(0.0, fault.at - self.loop.time()))
            self.trace.note(f"fault: {fault.kind} {fault.target} {fault.seconds:.1f}")
            self._cause(fault)

    def _cause(self, fault: Fault) -> None:
        service = next((s for s in self.services if s.name == fault.target), None)
        process = service.process if service is not None else None
        match fault.kind:
            case "kill" if process is not None and service is not None:
                service.restart_seconds = fault.seconds
                process.kill()
            case "pause" if process is not None:
                self._pause(process, fault.seconds)
            case "replace" if process is not None and service is not None and process.alive and service.wanted:
                # It only seems dead: another one is started, and later the first one wakes up.
                self._pause(process, fault.seconds)
                self.zombies.append(process)
                service.process = None
                again = self._start(f"{service.name}'", service.kind)
                again.generation = service.generation
                service.name = f"{service.name} (zombie)"
            case "stop" if service is not None and service.app is not None:
                service.restart_seconds = fault.seconds
                service.app.stopping.set()
            case "join":
                joining = self._start(f"extra-{fault.target}{len(self.services)}", fault.target)
                self.loop.call_later(fault.seconds, self._retire, joining, context=OUTSIDE)
            case "broker stall":
                self.kafka.stalled_until = self.loop.time() + fault.seconds
            case "node down":
                for replica in self.cassandra.replicas:
                    if replica.name in fault.target:
                        replica.up = False
                        self.loop.call_later(fault.seconds, setattr, replica, "up", True, context=OUTSIDE)
            case "compaction":
                self.kafka.compact(product.CHECKPOINTS)
            case "bit flip":
                self._flip()

    def _pause(self, process: Process, seconds: float) -> None:
        process.pause()
        self.loop.call_later(seconds, self._resume, process, context=OUTSIDE)

    def _resume(self, process: Process) -> None:
        if process.paused:
            self.trace.note(f"{process.name} goes on")
            process.resume()

    def _retire(self, service: Service) -> None:
        service.wanted = False
        if service.app is not None:
            service.app.stopping.set()

    def _flip(self) -> None:
        chunks = [
            (log, i)
            for log in self.kafka.topics[product.CHECKPOINTS]
            for i, r in enumerate(log.records)
            if r.value and b"manifest" not in (r.key or b"")
        ]
        if chunks:
            log, i = chunks[-1]
            r = log.records[i]
            assert r.value is not None
            at = self.rng.randrange(len(r.value))
            damaged = bytearray(r.value)
            damaged[at] ^= 1 << self.rng.randrange(8)
            log.records[i] = Stored(r.offset, r.timestamp, r.key, bytes(damaged), r.headers, r.producer)

    async def _correct(self) -> None:
        """Replace the workers by corrected ones of a higher generation; a paused one may still wake up as it was."""
        if self.plan.corrected_at is None:
            return
        await asyncio.sleep(self.plan.corrected_at)
        old = [s for s in self.services if s.kind == "worker"]
        self.generation = 1
        self.trace.note("generation 1 is started")
        for service in old:
            service.wanted = False
            process = service.process
            if process is not None and process.paused:
                self.zombies.append(process)
            elif process is not None and self.rng.random() < 0.5:
                process.kill()
            elif service.app is not None:
                service.app.stopping.set()
        for i in range(WORKERS):
            self._start(f"corrected{i}", "worker")
        await asyncio.sleep(max(0.0, self.plan.span - self.loop.time()) + 20.0)
        for service in old:
            if service.process is not None:
                service.process.kill()
        for process in self.zombies:
            if process.name.startswith(("worker", "extra-worker")):
                process.kill()

    async def _reader(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(1.0, 6.0))
            self.watch.look()
