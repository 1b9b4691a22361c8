"""A client for gateways that survives the field: what `send` has taken arrives, once the network lets it.

from fluvial.client import Client

with Client("http://127.0.0.1:8070", key="flv_…", topic="iot.readings") as client:
    client.send({"sensor_id": "s1", "metric": "temperature", "event_time": "2026-03-01T12:00:00Z", "value": 21.5})
"""

from fluvial.client.clients import AsyncClient, Client
from fluvial.client.outbox import OutboxError, OutboxFullError

__all__ = ["AsyncClient", "Client", "OutboxError", "OutboxFullError"]
