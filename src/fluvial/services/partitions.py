"""How many partitions topics have; asked without loading Faust, so that importing commands start quickly."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fluvial.errors import ProvisioningError
from fluvial.settings import KafkaSettings
from fluvial.transport.connection import librdkafka_config

METADATA_TIMEOUT_SECONDS = 30.0


def partition_counts(kafka: KafkaSettings, topics: set[str]) -> dict[str, int]:
    """Return how many partitions each topic has.

    Raises:
        ProvisioningError: Kafka cannot be reached, or a topic does not exist.
    """
    try:
        known = AdminClient(librdkafka_config(kafka)).list_topics(timeout=METADATA_TIMEOUT_SECONDS).topics
    except KafkaException as e:
        told = f"cannot reach Kafka at {kafka.brokers}: {e}"
        raise ProvisioningError(told, hint="is it up? `fluvial status`") from None
    missing = sorted(t for t in topics if t not in known)
    if missing:
        raise ProvisioningError(f"topic {missing[0]} does not exist", hint="run `fluvial init`")
    return {t: len(known[t].partitions) for t in topics}
