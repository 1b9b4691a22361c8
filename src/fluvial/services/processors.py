"""Putting a worker together: settings, registry, codecs, topics."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fluvial.errors import ProvisioningError
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.settings import KafkaSettings, Settings
from fluvial.stream_apps.outputs import Writers
from fluvial.stream_apps.plan import TopicPlan, chosen, plan_topics
from fluvial.stream_apps.worker import Worker, checkpoint_topic
from fluvial.transport.connection import librdkafka_config

METADATA_TIMEOUT_SECONDS = 30.0


def build_worker(settings: Settings, catalog: Catalog, registry: Registry) -> Worker:
    """Return a worker for the pipelines that the settings choose; asks Kafka and the registry what they have.

    Raises:
        ProvisioningError: a topic is missing.
        SchemaError: a schema is not registered.
        PipelineError: the settings name an unknown pipeline.
    """
    plans = plan_topics(chosen(catalog.pipelines, settings.worker.pipelines))
    rekeyed = {r.topic for plan in plans.values() for r in (*plan.rekeys, *(r for f in plan.forwards.values() for r in f))}
    decoders = {topic: Decoder(catalog.schema_of(topic), registry) for topic in plans}
    partitions = partition_counts(settings.kafka, {*plans, *rekeyed, checkpoint_topic(settings.worker.group)})
    return Worker(settings.kafka, settings.worker, plans, decoders, _writers(plans, rekeyed, catalog, registry), partitions)


def partition_counts(kafka: KafkaSettings, topics: set[str]) -> dict[str, int]:
    """Return how many partitions each topic has.

    Raises:
        ProvisioningError: Kafka cannot be reached, or a topic does not exist.
    """
    try:
        known = AdminClient(librdkafka_config(kafka)).list_topics(timeout=METADATA_TIMEOUT_SECONDS).topics
    except KafkaException as e:
        raise ProvisioningError(f"cannot reach Kafka at {kafka.brokers}: {e}", hint="is it up? `fluvial status`") from None
    missing = sorted(t for t in topics if t not in known)
    if missing:
        raise ProvisioningError(f"topic {missing[0]} does not exist", hint="run `fluvial init`")
    return {t: len(known[t].partitions) for t in topics}


def _writers(plans: dict[str, TopicPlan], rekeyed: set[str], catalog: Catalog, registry: Registry) -> Writers:
    schemas = {t: catalog.schema_of(t) for t in rekeyed}
    late = load_schema("fluvial.LateEvent")
    for plan in plans.values():
        schemas |= {p.result_topic: catalog.schema_of(p.result_topic) for p in plan.pipelines}
        schemas[plan.late_topic] = late
    encoders = {topic: Encoder(s, registry.schema_id(f"{topic}-value", s)) for topic, s in schemas.items()}
    dead = load_schema("fluvial.DeadLetter")
    any_topic = next(iter(plans.values())).dead_letter_topic
    return Writers(encoders, DatumWriter(dead, registry.schema_id(f"{any_topic}-value", dead)))
