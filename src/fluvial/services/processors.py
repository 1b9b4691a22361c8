"""Putting a worker together: settings, registry, codecs, topics."""

from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services.partitions import partition_counts
from fluvial.settings import Settings
from fluvial.stream_apps.outputs import Writers
from fluvial.stream_apps.plan import TopicPlan, chosen, plan_topics
from fluvial.stream_apps.rehearsal import rehearse
from fluvial.stream_apps.worker import Worker, checkpoint_topic
from fluvial.transport.available import FromAvailable


def build_worker(
    settings: Settings, catalog: Catalog, registry: Registry, from_available: FromAvailable | None = None
) -> Worker:
    """Return a worker for the pipelines that the settings choose; asks Kafka and the registry what they have.

    ``from_available`` says after which gaps in the log it may go on.

    Raises:
        ProvisioningError: a topic is missing.
        SchemaError: a schema is not registered.
        PipelineError: the settings name an unknown pipeline.
    """
    plans = plan_topics(chosen(catalog.pipelines, settings.worker.pipelines))
    rekeyed = {
        r.topic for plan in plans.values() for r in (*plan.rekeys, *(r for f in plan.forwards.values() for r in f))
    }
    schemas = {topic: catalog.schema_of(topic) for topic in plans}
    decoders = {topic: Decoder(schema, registry) for topic, schema in schemas.items()}
    partitions = partition_counts(settings.kafka, {*plans, *rekeyed, checkpoint_topic(settings.worker.group)})
    writers = _writers(plans, rekeyed, catalog, registry)
    rehearse(plans, schemas, writers, partitions)
    return Worker(
        settings.kafka,
        settings.worker,
        plans,
        decoders,
        writers,
        partitions,
        from_available,
    )


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
