from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishRequest(_message.Message):
    __slots__ = ("batch_id", "topic", "readings", "posts", "avro")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    POSTS_FIELD_NUMBER: _ClassVar[int]
    AVRO_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    topic: str
    readings: SensorReadings
    posts: SocialPosts
    avro: AvroEvents
    def __init__(self, batch_id: _Optional[str] = ..., topic: _Optional[str] = ..., readings: _Optional[_Union[SensorReadings, _Mapping]] = ..., posts: _Optional[_Union[SocialPosts, _Mapping]] = ..., avro: _Optional[_Union[AvroEvents, _Mapping]] = ...) -> None: ...

class SensorReadings(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[SensorReading]
    def __init__(self, events: _Optional[_Iterable[_Union[SensorReading, _Mapping]]] = ...) -> None: ...

class SocialPosts(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[SocialPost]
    def __init__(self, events: _Optional[_Iterable[_Union[SocialPost, _Mapping]]] = ...) -> None: ...

class AvroEvents(_message.Message):
    __slots__ = ("schema_id", "events")
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    schema_id: int
    events: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, schema_id: _Optional[int] = ..., events: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SensorReading(_message.Message):
    __slots__ = ("sensor_id", "site", "metric", "event_time_ms", "value", "unit", "sequence")
    SENSOR_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sensor_id: str
    site: str
    metric: str
    event_time_ms: int
    value: float
    unit: str
    sequence: int
    def __init__(self, sensor_id: _Optional[str] = ..., site: _Optional[str] = ..., metric: _Optional[str] = ..., event_time_ms: _Optional[int] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class SocialPost(_message.Message):
    __slots__ = ("post_id", "author_id", "network", "event_time_ms", "text", "language", "hashtags", "reply_to")
    POST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_ID_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    HASHTAGS_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    post_id: str
    author_id: str
    network: str
    event_time_ms: int
    text: str
    language: str
    hashtags: _containers.RepeatedScalarFieldContainer[str]
    reply_to: str
    def __init__(self, post_id: _Optional[str] = ..., author_id: _Optional[str] = ..., network: _Optional[str] = ..., event_time_ms: _Optional[int] = ..., text: _Optional[str] = ..., language: _Optional[str] = ..., hashtags: _Optional[_Iterable[str]] = ..., reply_to: _Optional[str] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("batch_id", "accepted", "rejected", "status", "detail", "retry_after_ms")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[PublishResponse.Status]
        BUSY: _ClassVar[PublishResponse.Status]
        UNAVAILABLE: _ClassVar[PublishResponse.Status]
        INVALID: _ClassVar[PublishResponse.Status]
        DENIED: _ClassVar[PublishResponse.Status]
    OK: PublishResponse.Status
    BUSY: PublishResponse.Status
    UNAVAILABLE: PublishResponse.Status
    INVALID: PublishResponse.Status
    DENIED: PublishResponse.Status
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    accepted: int
    rejected: _containers.RepeatedCompositeFieldContainer[Rejection]
    status: PublishResponse.Status
    detail: str
    retry_after_ms: int
    def __init__(self, batch_id: _Optional[str] = ..., accepted: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ..., status: _Optional[_Union[PublishResponse.Status, str]] = ..., detail: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("index", "kind", "reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    kind: str
    reason: str
    def __init__(self, index: _Optional[int] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
