"""`fluvial gateway` as a process of its own, on free ports."""

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx

from fluvial.cluster.ports import PortPicker
from fluvial.producers.gateway.keys import KeyFile
from fluvial.settings import Settings
from support.programs import FLUVIAL


class GatewayProcess:
    """Start it, kill it, start it again at the same addresses."""

    def __init__(self, settings: Settings, folder: Path, **more: str) -> None:
        self.folder, ports = folder, PortPicker()
        self.http_url = f"http://127.0.0.1:{ports.pick()}"
        self.grpc_target = f"127.0.0.1:{ports.pick()}"
        self.keys = KeyFile(folder / "keys.json")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")} | {
            "FLUVIAL_KAFKA__BROKERS": settings.kafka.brokers,
            "FLUVIAL_REGISTRY__URL": settings.registry.url,
            "FLUVIAL_GATEWAY__HTTP_URL": self.http_url,
            "FLUVIAL_GATEWAY__GRPC_TARGET": self.grpc_target,
            "FLUVIAL_GATEWAY__KEYS_FILE": str(folder / "keys.json"),
            **more,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it is ready."""
        with (self.folder / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [FLUVIAL, "gateway"], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 180
        while not self.ready():
            assert self.process.poll() is None, (self.folder / "gateway.log").read_text()
            assert time.monotonic() < deadline, "not ready in 180 s"
            time.sleep(0.05)

    def ready(self) -> bool:
        """Whether it says that it is."""
        try:
            return httpx.get(f"{self.http_url}/readyz", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """End it with SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        """End it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.terminate()
