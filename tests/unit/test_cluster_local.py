"""The life of a local cluster, with shell scripts in the place of its servers."""

import os
import signal
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fluvial.cluster import ClusterSpec, LocalCluster, Step
from fluvial.cluster.processes import identify, spawn, terminate
from fluvial.cluster.progress import Report
from fluvial.cluster.server import Launch, NotReadyError, Server
from fluvial.cluster.state import ClusterState, read_state, write_state
from fluvial.errors import ClusterError

SPEC = ClusterSpec(brokers=1, nodes=0, registry=True)
SERVES = "echo serving; exec sleep 120"


@dataclass(frozen=True)
class Script:
    """A server that is ready as soon as it has written to its log."""

    name: str
    command: str
    log: Path
    ready_seconds: float = 20

    def prepare(self) -> None:
        pass

    def launch(self) -> Launch:
        return Launch(("/bin/sh", "-c", self.command))

    def check(self) -> None:
        if "serving" not in self.log.read_text():
            raise NotReadyError("it has not said so")


class Machine:
    """What `assemble` would build: by default every server serves."""

    def __init__(self) -> None:
        self.commands: dict[str, str] = {}
        self.ready_seconds = 20.0

    def assemble(
        self, state: ClusterState, names: Collection[str], directory: Path, report: Report
    ) -> dict[str, Server]:
        return {
            n: Script(n, self.commands.get(n, SERVES), directory / "logs" / f"{n}.log", self.ready_seconds)
            for n in names
        }


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("fluvial.cluster.local.assemble", machine.assemble)
    return machine


@pytest.fixture
def cluster(machine: Machine, tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path / "cluster", SPEC)
    yield cluster
    cluster.stop()


def _pids(cluster: LocalCluster) -> dict[str, int | None]:
    return {s.name: s.pid for s in cluster.status()}


def test_a_started_cluster_is_found_by_its_settings_and_a_stopped_one_is_not(cluster: LocalCluster) -> None:
    cluster.start()
    assert cluster.settings.kafka.brokers.startswith("127.0.0.1:")
    assert all(s.running for s in cluster.status())
    assert cluster.stop() == ["kafka-1", "registry"]
    assert not any(s.running for s in cluster.status())
    with pytest.raises(ClusterError, match="is down"):
        _ = cluster.settings


def test_starting_again_leaves_what_runs_alone_and_starts_the_rest(cluster: LocalCluster) -> None:
    cluster.start()
    before = _pids(cluster)
    cluster.kill("registry")
    cluster.start()
    assert _pids(cluster)["kafka-1"] == before["kafka-1"]
    assert _pids(cluster)["registry"] not in (None, before["registry"])


def test_another_object_and_process_can_stop_it(cluster: LocalCluster) -> None:
    cluster.start()
    assert LocalCluster(cluster.directory).stop() == ["kafka-1", "registry"]


def test_a_restart_of_the_cluster_keeps_the_ports(cluster: LocalCluster) -> None:
    cluster.start()
    ports = {s.name: s.ports for s in cluster.status()}
    cluster.stop()
    cluster.start()
    assert {s.name: s.ports for s in cluster.status()} == ports


def test_when_a_server_ends_its_log_is_quoted_and_the_others_are_stopped(
    cluster: LocalCluster, machine: Machine
) -> None:
    machine.commands["registry"] = "echo 10:00 ERROR the disk is full; exit 1"
    with pytest.raises(ClusterError, match="registry ended while starting:\n    10:00 ERROR the disk is full"):
        cluster.start()
    assert not any(s.running for s in cluster.status())


def test_a_server_that_never_serves_is_given_up_with_the_reason(cluster: LocalCluster, machine: Machine) -> None:
    machine.commands["registry"] = "echo warming up; exec sleep 120"
    machine.ready_seconds = 0.5
    with pytest.raises(ClusterError, match="does not serve after 0 s: it has not said so\n    warming up"):
        cluster.start()
    assert not any(s.running for s in cluster.status())


def test_ctrl_c_while_starting_stops_everything(
    cluster: LocalCluster, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commands["registry"] = "exec sleep 120"

    def interrupt(step: Step) -> None:
        if step.subject == "kafka-1" and step.message.startswith("ready"):
            os.kill(os.getpid(), signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        cluster.start(interrupt)
    assert not any(s.running for s in cluster.status())


def test_a_stale_pid_of_another_program_is_not_taken_for_a_server(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.start()
    cluster.kill("kafka-1")
    stranger = spawn(["/bin/sleep", "60"], {}, tmp_path / "stranger.log")
    state = read_state(cluster.state_file)
    assert state is not None
    old = state.servers["kafka-1"]
    assert old.process is not None
    stale = replace(old, process=replace(old.process, pid=stranger.pid))
    write_state(cluster.state_file, state.with_server("kafka-1", stale))

    assert not cluster.is_running("kafka-1")
    cluster.start()
    assert cluster.stop() == ["kafka-1", "registry"]
    assert identify(stranger.pid) == stranger
    terminate([stranger], 5)


def test_single_servers_can_be_killed_paused_resumed_and_restarted(cluster: LocalCluster) -> None:
    cluster.start()
    pid = _pids(cluster)["kafka-1"]
    cluster.pause("kafka-1")
    assert cluster.is_running("kafka-1")
    cluster.resume("kafka-1")
    cluster.kill("kafka-1")
    assert not cluster.is_running("kafka-1")
    with pytest.raises(ClusterError, match="kafka-1 does not run"):
        cluster.pause("kafka-1")
    cluster.restart("kafka-1")
    assert _pids(cluster)["kafka-1"] not in (None, pid)


def test_one_server_can_be_started_alone(cluster: LocalCluster) -> None:
    cluster.start_server("kafka-1")
    assert [s.name for s in cluster.status() if s.running] == ["kafka-1"]
    assert cluster.settings.kafka.brokers


def test_a_server_that_the_cluster_does_not_have_is_named(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="has no server 'kafka-9'"):
        cluster.start_server("kafka-9")


def test_another_size_needs_a_fresh_start(cluster: LocalCluster) -> None:
    cluster.start()
    larger = LocalCluster(cluster.directory, replace(SPEC, brokers=3))
    with pytest.raises(ClusterError, match="holds 1 brokers and 0 nodes, not 3 and 0"):
        larger.start()
    larger.wipe()
    assert LocalCluster(cluster.directory).status() == []


def test_wiping_leaves_files_that_are_not_the_clusters(cluster: LocalCluster) -> None:
    cluster.start()
    (cluster.directory / "kafka-1").mkdir(exist_ok=True)
    mine = cluster.directory / "notes.txt"
    mine.write_text("keep me")
    cluster.wipe()
    assert mine.read_text() == "keep me"
    assert not (cluster.directory / "kafka-1").exists()
    assert not cluster.state_file.exists()


def test_two_commands_do_not_start_one_cluster_at_once(cluster: LocalCluster) -> None:
    def second(step: Step) -> None:
        LocalCluster(cluster.directory, SPEC).start()

    with pytest.raises(ClusterError, match="another command is starting or stopping"):
        cluster.start(second)


def test_an_empty_directory_has_nothing_to_stop_or_show(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "none")
    assert cluster.stop() == []
    assert cluster.status() == []
    assert not (tmp_path / "none").exists()
