"""Messages that are no events: kept in a file with their reasons, for MQTT has no answer to send them back with."""

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path


class RejectedMessages:
    """An NDJSON file, one message per line, on disk before the message is acknowledged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, topic: str, payload: bytes, reason: str) -> None:
        """Append a message; payloads that are no UTF-8 are kept in base 64."""
        line: dict[str, str] = {
            "received": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "topic": topic,
            "reason": reason,
        }
        try:
            line["payload"] = payload.decode()
        except UnicodeDecodeError:
            line["payload_base64"] = base64.b64encode(payload).decode()
        with open(os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
