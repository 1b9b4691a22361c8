"""A schema registry in memory that speaks the part of Confluent's HTTP API that fluvial uses."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeRegistry:
    """Subjects, versions and ids; ``fail_with`` makes every request fail with that status, ``requests`` counts them."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.levels: dict[str, str] = {}
        self.fail_with: int | None = None
        self.requests: list[str] = []
        self.url = ""

    def add(self, schema_id: int, text: str, **more: Any) -> None:
        """Keep a schema under an id, as it is."""
        self.schemas[schema_id] = {"schema": text, **more}

    def answer(self, method: str, path: list[str], body: Any) -> tuple[int, Any]:
        match (method, path):
            case ("GET", ["subjects"]):
                return 200, list(self.subjects)
            case ("GET", ["schemas", "ids", number]):
                found = self.schemas.get(int(number))
                return (200, found) if found else (404, _error(40403, f"Schema {number} not found"))
            case ("POST", ["subjects", subject, "versions"]):
                schema_id = self._id_of(body) or len(self.schemas) + 1
                self.schemas.setdefault(schema_id, {"schema": body["schema"]})
                versions = self.subjects.setdefault(subject, [])
                if schema_id not in versions:
                    versions.append(schema_id)
                return 200, {"id": schema_id}
            case ("POST", ["subjects", subject]):
                if subject not in self.subjects:
                    return 404, _error(40401, f"Subject '{subject}' not found.")
                found_id = self._id_of(body)
                if found_id not in self.subjects[subject]:
                    return 404, _error(40403, "Schema not found")
                return 200, {"subject": subject, "version": 1, "id": found_id, "schema": body["schema"]}
            case ("GET", ["subjects", subject, "versions", number]):
                schema_id = self.subjects[subject][int(number) - 1]
                return 200, {"subject": subject, "version": int(number), "id": schema_id, **self.schemas[schema_id]}
            case ("GET", ["config", subject]):
                if subject not in self.levels:
                    return 404, _error(40408, f"Subject '{subject}' has no compatibility of its own")
                return 200, {"compatibilityLevel": self.levels[subject]}
            case ("PUT", ["config", subject]):
                self.levels[subject] = body["compatibility"]
                return 200, body
        return 404, {"detail": "no such page"}

    def _id_of(self, body: Any) -> int | None:
        return next((i for i, s in self.schemas.items() if json.loads(s["schema"]) == json.loads(body["schema"])), None)


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error_code": code, "message": message}


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """Serve a `FakeRegistry` at a free port of this machine."""
    registry = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            registry.requests.append(f"{self.command} {self.path}")
            path = [part for part in self.path.split("?")[0].split("/") if part]
            status, answer = registry.answer(self.command, path, body)
            if registry.fail_with is not None:
                status, answer = registry.fail_with, _error(registry.fail_with, "out of order")
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
