"""``cluster.json``: what a data directory holds, which ports it uses, what runs, and the settings that lead there."""

import json
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fluvial.cluster.processes import ProcessId
from fluvial.cluster.spec import ClusterSpec
from fluvial.errors import ClusterError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ServerState:
    """The ports of one server, by purpose, and its process while it runs."""

    ports: Mapping[str, int]
    process: ProcessId | None = None


@dataclass(frozen=True)
class ClusterState:
    """All of ``cluster.json``; ``settings`` is what `fluvial.settings.load_settings` merges, empty while it is down."""

    spec: ClusterSpec
    kafka_cluster_id: str
    servers: Mapping[str, ServerState] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def with_server(self, name: str, server: ServerState) -> "ClusterState":
        """Return a copy in which the server ``name`` is ``server``."""
        return replace(self, servers={**self.servers, name: server})


def new_kafka_cluster_id() -> str:
    """Return a random id as Kafka writes them: 16 bytes in URL-safe base64, not beginning with a dash."""
    while (text := urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return text


def read_state(path: Path) -> ClusterState | None:
    """Return what the file says, None when there is none.

    Raises:
        ClusterError: it is damaged, or of another version of fluvial.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise ClusterError(f"{path} is damaged: {e}", hint="`fluvial up --fresh` begins anew") from None
    if not isinstance(data, dict) or data.get("version") != FORMAT_VERSION:
        raise ClusterError(f"{path} was written by another version of fluvial", hint="`fluvial up --fresh` begins anew")
    servers = {
        name: ServerState(s["ports"], ProcessId(**s["process"]) if s["process"] else None)
        for name, s in data["servers"].items()
    }
    return ClusterState(ClusterSpec(**data["spec"]), data["kafka_cluster_id"], servers, data["settings"])


def write_state(path: Path, state: ClusterState) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({"version": FORMAT_VERSION, **asdict(state)}, indent=2) + "\n")
    os.replace(partial, path)
