"""A real MQTT broker on a free port, when mosquitto is installed."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from fluvial.cluster.ports import PortPicker

PROGRAM = shutil.which("mosquitto") or ("/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else None)


class Mosquitto:
    """Start it, kill it, start it again: sessions and messages outlive it."""

    def __init__(self, folder: Path) -> None:
        if PROGRAM is None:
            pytest.skip("mosquitto is not installed")
        self.port = PortPicker().pick()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\nuser root\n"
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return once it takes connections."""
        assert PROGRAM is not None
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-c", str(self._folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self) -> None:
        """End it cleanly."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None
