"""A local cluster: real servers as child processes, everything about them under one directory."""

import fcntl
import os
import secrets
import shutil
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

from fluvial.cluster import artifacts, logs, plan, processes
from fluvial.cluster.cassandra import CassandraNode
from fluvial.cluster.java import find_java
from fluvial.cluster.kafka import KafkaBroker
from fluvial.cluster.ports import PortPicker
from fluvial.cluster.progress import Report, Step, silent
from fluvial.cluster.registry import SchemaRegistry
from fluvial.cluster.server import NotReadyError, Server
from fluvial.cluster.spec import ClusterSpec
from fluvial.cluster.state import ClusterState, ServerState, read_state, write_state
from fluvial.errors import ClusterError
from fluvial.settings import CLUSTER_FILE, Settings

GRACE_SECONDS = 10.0
CHECK_EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class ServerStatus:
    """A server of the cluster as the operating system sees it; ``memory_mb`` is resident memory."""

    name: str
    running: bool
    pid: int | None
    ports: Mapping[str, int]
    memory_mb: float | None
    log: Path


class LocalCluster:
    """The cluster whose data, logs and ``cluster.json`` are under ``directory``.

    Single servers are named ``kafka-1``…, ``cassandra-1``…, ``registry``; all of them outlive this object and this process. ``spec``
    None takes what the directory already holds, else one server of each kind.
    """

    def __init__(self, directory: Path, spec: ClusterSpec | None = None) -> None:
        self.directory = directory.absolute()
        self._wanted = spec
        self._lock = threading.RLock()
        self._aborted = threading.Event()

    @property
    def state_file(self) -> Path:
        """The path of ``cluster.json``."""
        return self.directory / CLUSTER_FILE

    @property
    def settings(self) -> Settings:
        """The settings that lead to this cluster.

        Raises:
            ClusterError: it is not running.
        """
        return Settings.model_validate(dict(self._state().settings))

    @property
    def spec(self) -> ClusterSpec:
        """What the cluster consists of."""
        state = read_state(self.state_file)
        return self._wanted or (state.spec if state else ClusterSpec())

    def start(self, report: Report = silent) -> None:
        """Start every server that does not run, and return when all of them serve; a running cluster is left as it is.

        Raises:
            ClusterError: a server did not start; what this call started is stopped again.
        """
        self._aborted.clear()
        with self._exclusive():
            state = self._prepared(report)
            idle = [name for name in state.spec.names if not self.is_running(name)]
            try:
                servers = self._servers(state, report)
                self._start_all({name: servers[name] for name in idle}, report)
                self._save(replace(self._state(), settings=plan.settings_of(state.spec, _ports(state))))
            except BaseException:
                self._aborted.set()
                self._end([name for name in idle if self.is_running(name)])
                raise

    def stop(self, report: Report = silent) -> list[str]:
        """End every server, whatever state it is in; return the names of those that ran."""
        state = read_state(self.state_file)
        if state is None:
            return []
        with self._exclusive():
            running = [name for name in state.servers if self.is_running(name)]
            for name in running:
                report(Step(name, "stopping"))
            self._end(running)
            self._save(replace(self._state(), settings={}))
        return running

    def wipe(self) -> None:
        """Stop the cluster and delete all that it keeps."""
        self.stop()
        for path in self.directory.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def start_server(self, name: str, report: Report = silent) -> None:
        """Start one server and wait until it serves.

        Raises:
            ClusterError: there is no such server, its port is taken, or it did not start.
        """
        self._aborted.clear()
        self._known(name)
        if not self.is_running(name):
            state = self._prepared(report)
            self._start_one(self._servers(state, report)[name], report)

    def stop_server(self, name: str) -> None:
        """End one server in order."""
        self._known(name)
        self._end([name])

    def restart(self, name: str, report: Report = silent) -> None:
        """End one server if it runs, and start it again on the same ports."""
        self.stop_server(name)
        self.start_server(name, report)

    def kill(self, name: str) -> None:
        """SIGKILL one server, and return when it is gone."""
        process = self._running(name)
        processes.send(process, SIGKILL)
        processes.wait_gone([process], GRACE_SECONDS)

    def pause(self, name: str) -> None:
        """SIGSTOP one server: it keeps its connections and answers nobody."""
        processes.send(self._running(name), SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT one server."""
        processes.send(self._running(name), SIGCONT)

    def is_running(self, name: str) -> bool:
        """Say whether the server's process lives (a paused one does); a stale pid, even one in use by another program, does not count."""
        process = self._state().servers[name].process if name in self._state().servers else None
        return process is not None and processes.is_alive(process)

    def status(self) -> list[ServerStatus]:
        """Return every server as it is now; empty when the directory holds no cluster."""
        state = read_state(self.state_file)
        return (
            [self._status_of(name, state.servers[name]) for name in state.spec.names if name in state.servers]
            if state
            else []
        )

    def log(self, name: str) -> Path:
        """Return the path of a server's log."""
        return self.directory / "logs" / f"{name}.log"

    # -- how ------------------------------------------------------------------------------------------------------------------

    def _prepared(self, report: Report) -> ClusterState:
        """Return the state with ports chosen for every server, and record it."""
        before = read_state(self.state_file)
        spec = self.spec
        if before and (before.spec.brokers, before.spec.nodes) != (spec.brokers, spec.nodes):
            raise ClusterError(
                f"{self.directory} holds {before.spec.brokers} brokers and {before.spec.nodes} nodes, not {spec.brokers} and {spec.nodes}",
                hint="--fresh deletes it and begins anew, or choose another directory with FLUVIAL_CLUSTER_DIR",
            )
        servers = dict(before.servers) if before else {}
        running = {name for name in servers if self.is_running(name)}
        had = {name: s.ports for name, s in servers.items()}
        ports = plan.plan_ports(spec, had, running, PortPicker())
        for change in plan.moved(had, ports):
            report(Step("ports", change))
        state = ClusterState(
            spec=spec,
            kafka_cluster_id=before.kafka_cluster_id
            if before
            else urlsafe_b64encode(secrets.token_bytes(16)).decode()[:22],
            servers={n: ServerState(ports[n], servers[n].process if n in running else None) for n in spec.names},
            settings=before.settings if before else {},
        )
        self._save(state)
        return state

    def _servers(self, state: ClusterState, report: Report) -> dict[str, Server]:
        """Return all servers of the cluster, with their jars at hand."""
        java = find_java()
        spec, ports, lock = state.spec, _ports(state), artifacts.read_lock()
        servers: list[Server] = []
        wanted = [*(lock["kafka"] if spec.brokers else ()), *(lock["cassandra"] if spec.nodes else ())]
        found = dict(zip(wanted, artifacts.resolve(wanted, report), strict=True))
        for i in range(1, spec.brokers + 1):
            servers.append(
                KafkaBroker(
                    node_id=i,
                    folder=self.directory / f"kafka-{i}",
                    port=ports[f"kafka-{i}"]["client"],
                    controllers=tuple(ports[f"kafka-{n}"]["controller"] for n in range(1, spec.brokers + 1)),
                    cluster_id=state.kafka_cluster_id,
                    java=java,
                    jars=tuple(found[a] for a in lock["kafka"]),
                    heap_mb=spec.broker_heap_mb,
                )
            )
        for i in range(1, spec.nodes + 1):
            mine = ports[f"cassandra-{i}"]
            servers.append(
                CassandraNode(
                    number=i,
                    nodes=spec.nodes,
                    folder=self.directory / f"cassandra-{i}",
                    port=mine["native"],
                    storage_port=mine["storage"],
                    jmx_port=mine["jmx"],
                    java=java,
                    jars=tuple(found[a] for a in lock["cassandra"]),
                    heap_mb=spec.node_heap_mb,
                )
            )
        if spec.registry:
            servers.append(
                SchemaRegistry(
                    home=artifacts.unpack(lock["registry"][0], report),
                    folder=self.directory / "registry",
                    port=ports["registry"]["http"],
                    management_port=ports["registry"]["management"],
                    java=java,
                    heap_mb=spec.registry_heap_mb,
                )
            )
        return {s.name: s for s in servers}

    def _start_all(self, servers: Mapping[str, Server], report: Report) -> None:
        """Start everything at once, but a node that is new to its ring after the node before it."""
        started = {name: threading.Event() for name in servers}

        def start(name: str) -> None:
            for other in _waits_for(name, servers):
                while not started[other].wait(CHECK_EVERY_SECONDS):
                    if self._aborted.is_set():
                        return
            self._start_one(servers[name], report)
            started[name].set()

        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            futures = [pool.submit(start, name) for name in servers]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._aborted.set()
                raise

    def _start_one(self, server: Server, report: Report) -> None:
        begun = time.monotonic()
        report(Step(server.name, "starting"))
        server.prepare()
        log = self.log(server.name)
        logs.rotate(log)
        launch = server.launch()
        process = processes.spawn(launch.argv, {**os.environ, **launch.env}, log)
        with self._lock:
            state = self._state()
            self._save(state.with_server(server.name, replace(state.servers[server.name], process=process)))
        reason = ""
        while time.monotonic() - begun < server.ready_seconds:
            if self._aborted.is_set():
                return
            if not processes.is_alive(process):
                raise ClusterError(f"{server.name} ended while starting:{logs.quote(log)}", hint=f"its log is {log}")
            try:
                server.check()
            except NotReadyError as e:
                reason = str(e)
                time.sleep(CHECK_EVERY_SECONDS)
            else:
                report(Step(server.name, f"ready after {time.monotonic() - begun:.1f} s"))
                return
        raise ClusterError(
            f"{server.name} is not ready after {server.ready_seconds:.0f} s: {reason}{logs.quote(log)}",
            hint=f"its log is {log}",
        )

    def _end(self, names: list[str]) -> None:
        with self._lock:
            state = self._state()
            running = [p for name in names if (p := state.servers[name].process)]
            processes.terminate(running, GRACE_SECONDS)
            for name in names:
                state = state.with_server(name, replace(state.servers[name], process=None))
            self._save(state)

    def _running(self, name: str) -> processes.ProcessId:
        process = self._known(name).process
        if process is None or not processes.is_alive(process):
            raise ClusterError(f"{name} does not run", hint="`fluvial status` shows what runs")
        return process

    def _known(self, name: str) -> ServerState:
        servers = self._state().servers
        if name not in servers:
            raise ClusterError(
                f"the cluster in {self.directory} has no server {name!r}", hint=f"it has {', '.join(servers)}"
            )
        return servers[name]

    def _status_of(self, name: str, server: ServerState) -> ServerStatus:
        running = self.is_running(name)
        process = server.process if running else None
        memory = processes.memory_mb(process) if process else None
        return ServerStatus(name, running, process.pid if process else None, server.ports, memory, self.log(name))

    def _state(self) -> ClusterState:
        with self._lock:
            state = read_state(self.state_file)
        if state is None:
            raise ClusterError(f"there is no cluster in {self.directory}", hint="`fluvial up` starts one")
        return state

    def _save(self, state: ClusterState) -> None:
        with self._lock:
            write_state(self.state_file, state)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep two commands from starting or stopping the same cluster at once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ClusterError(
                    f"another command is starting or stopping the cluster in {self.directory}", hint="wait for it"
                ) from None
            yield


def _waits_for(name: str, starting: Mapping[str, Server]) -> list[str]:
    server = starting[name]
    if isinstance(server, CassandraNode) and server.number > 1 and not server.has_joined_before:
        return [other for other in (f"cassandra-{server.number - 1}",) if other in starting]
    return []


def _ports(state: ClusterState) -> dict[str, Mapping[str, int]]:
    return {name: s.ports for name, s in state.servers.items()}
