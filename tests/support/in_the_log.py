"""What the log has of some sensors since a moment, read by the oracle's own reader."""

from typing import Any

from fluvial.oracle.from_kafka import decode_message, read_messages, reader_schema, registry
from fluvial.schemas.avro import SCHEMA_DIR
from fluvial.settings import Settings
from support.transport import ends

READINGS = "iot.readings"


class SensorsInTheLog:
    """Remembers where the topic of readings ended when it was made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begin = ends(settings.kafka, READINGS, settings.kafka.partitions)

    def events(self, sensor: str) -> list[dict[str, Any]]:
        """Return the events of a sensor since then, in the log's order."""
        schemas = registry(self._settings.registry.url)
        reader = reader_schema("fluvial.iot.SensorReading", SCHEMA_DIR)
        connection = {"bootstrap.servers": self._settings.kafka.brokers}
        found = [
            decode_message(m, schemas, reader).event
            for partition, begin in enumerate(self._begin)
            for m in read_messages(connection, READINGS, partition, begin=begin)
            if m.key() == sensor.encode()
        ]
        return [dict(e) for e in found if e is not None]
