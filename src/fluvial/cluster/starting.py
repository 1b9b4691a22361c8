"""Starting servers side by side and waiting until they serve."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fluvial.cluster import logs, processes
from fluvial.cluster.cassandra import CassandraNode, ask_cassandra
from fluvial.cluster.kafka import KafkaBroker, ask_kafka
from fluvial.cluster.processes import ProcessId
from fluvial.cluster.progress import Report, Step
from fluvial.cluster.server import NotReadyError, Server
from fluvial.errors import ClusterError

CHECK_EVERY_SECONDS = 0.2
SETTLE_SECONDS = 60.0


class AbortedError(Exception):
    """The start was given up because another server failed, or on Ctrl-C."""


@dataclass(frozen=True)
class Starter:
    """Starts servers; ``log_of`` names a server's log, ``started`` is told of its process as soon as it exists."""

    log_of: Callable[[str], Path]
    started: Callable[[str, ProcessId], None]
    report: Report
    aborted: threading.Event

    def start_all(self, servers: Mapping[str, Server]) -> None:
        """Start everything at once, but a node that is new to its ring after the node before it.

        Raises:
            ClusterError: a server did not start; others may be running.
        """
        ready = {name: threading.Event() for name in servers}

        def start(name: str) -> None:
            for other in _waits_for(name, servers):
                while not ready[other].wait(CHECK_EVERY_SECONDS):
                    self._give_up_when_aborted()
            self.start_one(servers[name])
            ready[name].set()

        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            futures = [pool.submit(start, name) for name in servers]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.aborted.set()
                raise

    def start_one(self, server: Server) -> None:
        """Start one server and return when it serves.

        Raises:
            ClusterError: it ended, or does not serve in time; its log is quoted.
        """
        begun = time.monotonic()
        self.report(Step(server.name, "starting"))
        server.prepare()
        self._give_up_when_aborted()
        log = self.log_of(server.name)
        logs.rotate(log)
        launch = server.launch()
        process = processes.spawn(launch.argv, {**os.environ, **launch.env}, log)
        self.started(server.name, process)

        def check() -> None:
            if not processes.is_alive(process):
                raise ClusterError(f"{server.name} ended while starting:{logs.quote(log)}", hint=f"its log is {log}")
            server.check()

        try:
            self._wait(check, server.ready_seconds)
        except NotReadyError as e:
            seconds = f"{server.ready_seconds:.0f} s"
            raise ClusterError(
                f"{server.name} does not serve after {seconds}: {e}{logs.quote(log)}", hint=f"its log is {log}"
            ) from None
        self.report(Step(server.name, f"ready after {time.monotonic() - begun:.1f} s"))

    def settle(self, servers: Mapping[str, Server]) -> None:
        """Wait until the brokers, and the nodes, all know one another.

        Raises:
            ClusterError: they do not in time.
        """
        brokers = [s for s in servers.values() if isinstance(s, KafkaBroker)]
        nodes = [s for s in servers.values() if isinstance(s, CassandraNode)]

        def check() -> None:
            if brokers:
                ask_kafka(brokers[0].bootstrap, brokers=len(brokers))
            for node in nodes if len(nodes) > 1 else ():
                ask_cassandra(node.host, node.port, nodes=len(nodes))

        try:
            self._wait(check, SETTLE_SECONDS)
        except NotReadyError as e:
            raise ClusterError(
                f"the servers run, but {e}", hint="look into the logs, or begin anew with --fresh"
            ) from None

    def _wait(self, check: Callable[[], None], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self._give_up_when_aborted()
            try:
                return check()
            except NotReadyError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(CHECK_EVERY_SECONDS)

    def _give_up_when_aborted(self) -> None:
        if self.aborted.is_set():
            raise AbortedError


def _waits_for(name: str, starting: Mapping[str, Server]) -> list[str]:
    server = starting[name]
    if isinstance(server, CassandraNode) and server.number > 1 and not server.has_joined_before:
        return [other for other in (f"cassandra-{server.number - 1}",) if other in starting]
    return []
