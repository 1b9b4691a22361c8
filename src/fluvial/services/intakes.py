"""The checks of event topics, for gateways and feeds alike."""

from fluvial.producers.fields import fields_of
from fluvial.producers.gateway.intake import TopicIntake
from fluvial.producers.gateway.privacy import privacy_of, pseudonym_key
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.registry import Registry
from fluvial.services.importing import EventTopic, event_topic
from fluvial.settings import Settings


def intakes(settings: Settings, catalog: Catalog, registry: Registry) -> dict[str, TopicIntake]:
    """Return the checks of every declared event topic, warmed up.

    Raises:
        SettingsError, SchemaError: see `intake_of`.
    """
    topics = [t.name for t in catalog.topics if t.role == "events"]
    return {t: intake_of(settings, event_topic(catalog, t), registry, settings.gateway.pseudonyms) for t in topics}


def intake_of(settings: Settings, into: EventTopic, registry: Registry, pseudonyms: str) -> TopicIntake:
    """Return the checks of one topic, warmed up; ``pseudonyms`` as in `gateway.pseudonyms`.

    Raises:
        SettingsError: a field that is to be hidden is none, or the pseudonyms' keys are not private.
        SchemaError: the topic's schema is not registered: `fluvial init` has not run.
    """
    ours = settings.gateway
    key = pseudonym_key(ours.pseudonym_keys) if pseudonyms else None
    intake = TopicIntake(
        into.topic,
        into.schema,
        key=into.key,
        event_time=into.event_time,
        not_empty=into.not_empty,
        encoder=Encoder(into.schema, into.schema_id(registry)),
        decoder=Decoder(into.schema, registry),
        max_ahead_ms=int(settings.worker.max_ahead_seconds * 1000),
        privacy=privacy_of(into.topic, fields_of(into.schema), key, pseudonyms, ours.dropped_fields),
    )
    intake.warm_up()
    return intake
