"""A gateway that answers as it is told, and keeps what it accepted: for tests of clients."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = tuple[int, dict[str, Any], dict[str, str]]


@dataclass
class FakeGateway:
    """``answers`` decides by request number (from 0) and events; None is the right answer, a string cuts the connection.

    "before" cuts before the events are taken, "after" when they have been.
    """

    url: str = ""
    answer: Callable[[int, list[Any]], Answer | str | None] = lambda number, events: None
    requests: int = 0
    names: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    """Serve on a free port."""
    fake = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            events = [json.loads(line) for line in body.splitlines()]
            number, fake.requests = fake.requests, fake.requests + 1
            fake.names.append(self.headers["Idempotency-Key"])
            answer = fake.answer(number, events)
            if answer != "before" and (answer is None or isinstance(answer, str) or answer[0] == 200):
                bad = {r["index"] for r in answer[1]["rejected"]} if isinstance(answer, tuple) else set()
                fake.accepted += [e for i, e in enumerate(events) if i not in bad]
            if isinstance(answer, str):
                self.close_connection = True
                self.connection.close()
                return
            status, data, headers = answer or (200, {"accepted": len(events), "rejected": []}, {})
            out = json.dumps(data).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(out))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(out)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (OSError, ValueError):
                self.close_connection = True

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
