"""A local cluster: real servers as child processes, everything about them under one directory."""

import fcntl
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

from fluvial.cluster import plan, processes
from fluvial.cluster.assemble import assemble
from fluvial.cluster.ports import PortPicker
from fluvial.cluster.processes import ProcessId
from fluvial.cluster.progress import Report, Step, silent
from fluvial.cluster.server import Server
from fluvial.cluster.spec import ClusterSpec
from fluvial.cluster.starting import Starter
from fluvial.cluster.state import ClusterState, ServerState, new_kafka_cluster_id, read_state, write_state
from fluvial.errors import ClusterError
from fluvial.settings import CLUSTER_FILE, Settings

GRACE_SECONDS = 10.0


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

    Single servers are named ``kafka-1``…, ``cassandra-1``…, ``registry``; all of them outlive this object and this
    process. ``spec`` None takes what the directory already holds, else one server of each kind.
    """

    def __init__(self, directory: Path, spec: ClusterSpec | None = None) -> None:
        self.directory = directory.absolute()
        self._wanted = spec
        self._lock = threading.RLock()

    @property
    def state_file(self) -> Path:
        """The path of ``cluster.json``."""
        return self.directory / CLUSTER_FILE

    @property
    def spec(self) -> ClusterSpec:
        """What the cluster consists of."""
        state = read_state(self.state_file)
        return self._wanted or (state.spec if state else ClusterSpec())

    @property
    def settings(self) -> Settings:
        """The settings that lead to this cluster.

        Raises:
            ClusterError: it is not running.
        """
        settings = self._state().settings
        if not settings:
            raise ClusterError(f"the cluster in {self.directory} is down", hint="`fluvial up` starts it")
        return Settings.model_validate(dict(settings))

    def start(self, report: Report = silent) -> None:
        """Start every server that does not run, and return when all of them serve; one that runs is left as it is.

        Raises:
            ClusterError: a server did not start; what this call started is stopped again.
        """
        self._start(self.spec.names, report, Starter.settle)

    def stop(self, report: Report = silent) -> list[str]:
        """End every server, whatever state it is in; return the names of those that ran."""
        if read_state(self.state_file) is None:
            return []
        with self._exclusive():
            state = self._state()
            self._save(replace(state, settings={}))
            running = [name for name in state.servers if self.is_running(name)]
            for name in running:
                report(Step(name, "stopping"))
            self._end(state.servers)
            for name in running:
                report(Step(name, "stopped"))
        return running

    def wipe(self) -> None:
        """Stop the cluster and delete all that it keeps."""
        self.stop()
        folders = [*self.directory.glob("kafka-[0-9]"), *self.directory.glob("cassandra-[0-9]")]
        for folder in (*folders, self.directory / "registry", self.directory / "logs"):
            shutil.rmtree(folder, ignore_errors=True)
        self.state_file.unlink(missing_ok=True)

    def start_server(self, name: str, report: Report = silent) -> None:
        """Start one server, if it does not run, and wait until it serves, however the others are.

        Raises:
            ClusterError: there is no such server, its port is taken, or it did not start.
        """
        self._start([name], report, lambda starter, servers: None)

    def stop_server(self, name: str) -> None:
        """End one server in order: SIGTERM, and SIGKILL when that does not help."""
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
        """Say whether the server's own process lives, paused or not."""
        server = self._state().servers.get(name)
        return server is not None and server.process is not None and processes.is_alive(server.process)

    def status(self) -> list[ServerStatus]:
        """Return every server as it is now; empty when the directory holds no cluster."""
        state = read_state(self.state_file)
        return [self._status_of(name, server) for name, server in state.servers.items()] if state else []

    def log(self, name: str) -> Path:
        """Return the path of a server's log."""
        return self.directory / "logs" / f"{name}.log"

    def _start(
        self, names: Sequence[str], report: Report, settle: Callable[[Starter, Mapping[str, Server]], None]
    ) -> None:
        with self._exclusive():
            state = self._prepared(names, report)
            idle = [name for name in names if not self.is_running(name)]
            starter = Starter(self.log, self._record, report, threading.Event())
            try:
                servers = assemble(state, names, self.directory, report)
                starter.start_all({name: servers[name] for name in idle})
                settle(starter, servers)
                self._publish(state)
            except BaseException:
                starter.aborted.set()
                self._end(idle)
                raise

    def _prepared(self, names: Sequence[str], report: Report) -> ClusterState:
        """Return the state with ports chosen for every server, and record it."""
        before = read_state(self.state_file) or ClusterState(self.spec, new_kafka_cluster_id())
        spec = self.spec
        if unknown := set(names) - set(spec.names):
            raise ClusterError(
                f"{self.directory} has no server {unknown.pop()!r}", hint=f"it has {', '.join(spec.names)}"
            )
        if (before.spec.brokers, before.spec.nodes) != (spec.brokers, spec.nodes):
            held = f"{before.spec.brokers} brokers and {before.spec.nodes} nodes"
            raise ClusterError(
                f"{self.directory} holds {held}, not {spec.brokers} and {spec.nodes}",
                hint="--fresh deletes them and begins anew; or choose another directory with FLUVIAL_CLUSTER_DIR",
            )
        running = {name: s for name, s in before.servers.items() if self.is_running(name)}
        had = {name: s.ports for name, s in before.servers.items()}
        ports = plan.plan_ports(spec, had, set(running), PortPicker())
        for change in plan.moved(had, ports):
            report(Step("ports", change))
        servers = {name: running.get(name) or ServerState(ports[name]) for name in spec.names}
        state = replace(before, spec=spec, servers=servers)
        self._save(state)
        return state

    def _record(self, name: str, process: ProcessId | None) -> None:
        with self._lock:
            state = self._state()
            self._save(state.with_server(name, replace(state.servers[name], process=process)))

    def _publish(self, state: ClusterState) -> None:
        """Let `fluvial.settings.load_settings` find the cluster."""
        ports = {name: server.ports for name, server in state.servers.items()}
        with self._lock:
            self._save(replace(self._state(), settings=plan.settings_of(state.spec, ports)))

    def _end(self, names: Iterable[str]) -> None:
        servers = self._state().servers
        processes.terminate([p for name in names if (p := servers[name].process)], GRACE_SECONDS)
        for name in names:
            self._record(name, None)

    def _running(self, name: str) -> ProcessId:
        process = self._known(name).process
        if process is None or not processes.is_alive(process):
            raise ClusterError(f"{name} does not run", hint="`fluvial status` shows what runs")
        return process

    def _known(self, name: str) -> ServerState:
        servers = self._state().servers
        if name not in servers:
            raise ClusterError(f"{self.directory} has no server {name!r}", hint=f"it has {', '.join(servers)}")
        return servers[name]

    def _status_of(self, name: str, server: ServerState) -> ServerStatus:
        process = server.process if self.is_running(name) else None
        memory = processes.memory_mb(process) if process else None
        pid = process.pid if process else None
        return ServerStatus(name, process is not None, pid, server.ports, memory, self.log(name))

    def _state(self) -> ClusterState:
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
        (self.directory / ".gitignore").write_text("*\n")
        with (self.directory / "lock").open("w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ClusterError(
                    f"another command is starting or stopping the cluster in {self.directory}",
                    hint="wait for it to end",
                ) from None
            yield
