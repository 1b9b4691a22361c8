"""Whether topics are what an app was declared to read; and their ids, which tell a topic from a later one of its name."""

import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from fluvial.errors import ProvisioningError, TransportError

ANSWER_SECONDS = 30.0

log = logging.getLogger(__name__)


def topic_ids(admin: AdminClient, topics: list[str]) -> dict[str, str]:
    """Return the ids of topics; brokers before Kafka 2.8 give none. Blocks.

    Raises:
        TransportError: the brokers do not describe them.
    """
    if not topics:
        return {}
    found = admin.describe_topics(TopicCollection(topics), request_timeout=ANSWER_SECONDS)
    try:
        ids = {topic: future.result().topic_id for topic, future in found.items()}
    except KafkaException as e:
        raise TransportError(
            f"Kafka does not describe its topics: {e.args[0].str()}", hint="is it up? `fluvial status`"
        ) from None
    return {topic: str(i) for topic, i in ids.items() if i is not None}


def verify_topics(config: Mapping[str, Any], expected: Mapping[str, int | None]) -> dict[str, str]:
    """Compare topics with the partition counts that they must have (None: any), and return their ids. Blocks.

    Raises:
        ProvisioningError: a topic does not exist, or has another count.
        TransportError: no broker answers.
    """
    admin = AdminClient(dict(config), logger=log)
    try:
        topics = admin.list_topics(timeout=30).topics
    except KafkaException as e:
        raise TransportError(
            f"no answer from Kafka at {config['bootstrap.servers']}: {e.args[0].str()}",
            hint="`fluvial status` shows whether the brokers run",
        ) from None
    for name, partitions in sorted(expected.items()):
        if name not in topics:
            raise ProvisioningError(f"topic {name} does not exist", hint="`fluvial init` creates the topics")
        found = len(topics[name].partitions)
        if partitions is not None and found != partitions:
            raise ProvisioningError(
                f"topic {name} has {found} partitions, not {partitions}",
                hint="set kafka.partitions to what it has; raising a topic's partitions needs a new generation",
            )
    return topic_ids(admin, list(expected))
