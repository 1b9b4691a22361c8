"""How a Kafka client is told to reach the brokers: one `KafkaSettings`, librdkafka's, aiokafka's and Faust's ways to say it."""

import ssl
from typing import Any

from fluvial.errors import SettingsError
from fluvial.settings import KafkaSettings


def librdkafka_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the connection part of a confluent-kafka client's configuration (producer, consumer or admin)."""
    config: dict[str, Any] = {"bootstrap.servers": kafka.brokers, "security.protocol": kafka.security_protocol}
    if kafka.ssl_ca_location is not None:
        config["ssl.ca.location"] = kafka.ssl_ca_location
    if _uses_sasl(kafka):
        username, password = _credentials(kafka)
        config |= {
            "sasl.mechanism": kafka.sasl_mechanism or "PLAIN",
            "sasl.username": username,
            "sasl.password": password,
        }
    return config


def aiokafka_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the connection part of an aiokafka client's arguments."""
    config: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(kafka),
        "security_protocol": kafka.security_protocol,
        "ssl_context": ssl_context(kafka),
    }
    if _uses_sasl(kafka):
        username, password = _credentials(kafka)
        config |= {
            "sasl_mechanism": kafka.sasl_mechanism or "PLAIN",
            "sasl_plain_username": username,
            "sasl_plain_password": password,
        }
    return config


def bootstrap_servers(kafka: KafkaSettings) -> list[str]:
    """Return the brokers as a list of ``host:port``."""
    return [b.strip() for b in kafka.brokers.split(",") if b.strip()]


def ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """Return the TLS context of an SSL or SASL_SSL connection, None for plain text."""
    if "SSL" not in kafka.security_protocol.split("_"):
        return None
    return ssl.create_default_context(cafile=kafka.ssl_ca_location)


def _uses_sasl(kafka: KafkaSettings) -> bool:
    return kafka.security_protocol.startswith("SASL")


def _credentials(kafka: KafkaSettings) -> tuple[str, str]:
    if kafka.sasl_username is None or kafka.sasl_password is None:
        raise SettingsError(
            f"kafka.security_protocol is {kafka.security_protocol} but the user or the password is missing",
            hint="set kafka.sasl_username and kafka.sasl_password",
        )
    return kafka.sasl_username, kafka.sasl_password.get_secret_value()
