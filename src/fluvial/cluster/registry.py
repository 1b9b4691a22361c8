"""The schema registry of a local cluster: Apicurio, used through Confluent's API."""

import http.client
import json
from dataclasses import dataclass
from pathlib import Path

from fluvial.cluster.server import Launch, NotReadyError, require_listening

HOST = "127.0.0.1"
API_PATH = "/apis/ccompat/v7"


@dataclass(frozen=True)
class SchemaRegistry:
    """Apicurio Registry, unpacked at ``home``.

    Its schemas are in a database file under ``folder`` and survive a SIGKILL: every change is on disk before it is
    acknowledged. (Kept in a Kafka topic instead, they would cost 20 s at each start.)
    """

    home: Path
    folder: Path
    port: int
    management_port: int
    java: Path
    heap_mb: int
    ready_seconds: float = 180
    name: str = "registry"

    @property
    def url(self) -> str:
        """The base URL of the Confluent API."""
        return f"http://{HOST}:{self.port}{API_PATH}"

    def prepare(self) -> None:
        """Make the folder; all of its configuration is in the environment."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def launch(self) -> Launch:
        """Return the registry's command line and environment."""
        env = {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(self.port),
            "QUARKUS_MANAGEMENT_HOST": HOST,
            "QUARKUS_MANAGEMENT_PORT": str(self.management_port),
            "QUARKUS_LOG_CONSOLE_FORMAT": "%d{HH:mm:ss.SSS} %-5p %c{1}: %s%e%n",
            "QUARKUS_LOG_CONSOLE_COLOR": "false",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self.folder / 'schemas'};WRITE_DELAY=0",
            "APICURIO_DATASOURCE_USERNAME": "sa",
            "APICURIO_DATASOURCE_PASSWORD": "",
        }
        return Launch(
            (
                str(self.java),
                "-Xms64m",
                f"-Xmx{self.heap_mb}m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-XX:+ExitOnOutOfMemoryError",
                "-jar",
                str(self.home / "quarkus-run.jar"),
            ),
            env,
        )

    def check(self) -> None:
        """Ask for its health, then for the subjects as a client does: before it is healthy it answers with too few."""
        ask_registry(HOST, self.port, self.management_port)


def ask_registry(host: str, port: int, management_port: int) -> None:
    """Check that the registry says it is ready, and that its Confluent API answers.

    Raises:
        NotReadyError: not yet.
    """
    require_listening(host, management_port)
    _get(host, management_port, "/health/ready")
    _get(host, port, f"{API_PATH}/subjects")


def _get(host: str, port: int, path: str) -> object:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as e:
        raise NotReadyError(f"the registry does not answer at {path}: {e}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise NotReadyError(f"the registry answers {response.status} at {path}")
    try:
        return json.loads(body)
    except ValueError:
        raise NotReadyError(f"the registry answers no JSON at {path}") from None
