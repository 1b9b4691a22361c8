"""A real partition as the oracle's records, read with confluent-kafka and fastavro and none of the product's code."""

import io
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

import fluvial.schemas.declarations as declarations
from fluvial.oracle.oracle import run
from fluvial.oracle.records import OracleResult, Record

Schema = Any
Headers = Sequence[tuple[str, bytes | None]]
SchemaById = Callable[[int], Schema]

PATIENCE_SECONDS = 60.0
NOT_FOUND = 404


class RegistryAwayError(Exception):
    """The registry does not answer, so that nothing can be said about a payload."""


def ask_oracle(
    pipeline: declarations.Pipeline,
    brokers: str,
    schemas: SchemaById,
    *,
    upstream_partitions: int = 0,
    generation: int = 0,
    exhausted: bool = False,
    reader: Schema | None = None,
) -> dict[int, OracleResult]:
    """Return the oracle's answer for every partition of the pipeline's source topic, as it is now."""
    return {
        partition: run(
            pipeline,
            read_partition(brokers, schemas, pipeline.source, partition, reader=reader),
            upstream_partitions=upstream_partitions,
            generation=generation,
            partition=partition,
            exhausted=exhausted,
        )
        for partition in partitions_of(brokers, pipeline.source)
    }


def partitions_of(brokers: str, topic: str) -> list[int]:
    """Return the numbers of a topic's partitions."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "oracle"})
    try:
        return sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    finally:
        consumer.close()


def read_partition(
    brokers: str, schemas: SchemaById, topic: str, partition: int, *, reader: Schema | None = None
) -> list[Record]:
    """Return all committed records of a partition up to its present end."""
    messages = read_messages({"bootstrap.servers": brokers}, topic, partition)
    return [decode_message(message, schemas, reader) for message in messages]


def read_messages(
    connection: Mapping[str, Any], topic: str, partition: int, *, begin: int | None = None, until: int | None = None
) -> Iterator[Message]:
    """Yield the committed records of a partition from ``begin`` (its first) to ``until`` (its present end), not included.

    ``connection`` is the part of librdkafka's configuration that says how to reach Kafka.

    Raises:
        KafkaException: Kafka does not answer for a minute, or the log does not reach back to ``begin``.
    """
    consumer = Consumer(
        {
            **connection,
            "group.id": "oracle",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "check.crcs": True,
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING if begin is None else begin)])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            messages = consumer.consume(1_000, timeout=0.1)
            if messages:
                deadline = time.monotonic() + PATIENCE_SECONDS
            elif time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}[{partition}] does not answer"))
            for message in messages:
                error = message.error()
                if error is None:
                    if until is not None and message.offset() >= until:
                        return
                    yield message
                    if until is not None and message.offset() == until - 1:
                        return
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
                    raise KafkaException(error)
    finally:
        consumer.close()


def decode_message(message: Message, schemas: SchemaById, reader: Schema | None) -> Record:
    """Return one message of a topic of events as what it is."""
    return decode(
        offset=message.offset(),
        timestamp=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=message.headers() or [],
        schemas=schemas,
        reader=reader,
    )


def decode(
    *,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    schemas: SchemaById,
    reader: Schema | None = None,
) -> Record:
    """Return one record as what it is: an event, a tick of either kind, or bad."""
    if value is None:
        instant = _number(headers, "fluvial-tick")
        if instant is None:
            return Record(offset, timestamp, "bad", key)
        upstream = _number(headers, "fluvial-upstream")
        return Record(offset, timestamp, "tick" if key is None else "keyed_tick", key, None, instant, upstream)
    try:
        return Record(offset, timestamp, "event", key, unframed(value, schemas, reader))
    except RegistryAwayError:
        raise
    except Exception:  # noqa: BLE001 (whatever a payload does to the decoder, it is a bad record)
        return Record(offset, timestamp, "bad", key)


def registry(url: str, credentials: tuple[str, str] | None = None) -> SchemaById:
    """Return a function that asks a schema registry (Confluent's API) for a writer's schema by its id, once each.

    It raises a LookupError when there is none, and `RegistryAwayError` when the registry does not say.
    """
    known: dict[int, Schema | None] = {}

    def ask(number: int) -> Schema | None:
        request = Request(f"{url}/schemas/ids/{number}")  # noqa: S310
        if credentials is not None:
            request.add_header("Authorization", "Basic " + b64encode(":".join(credentials).encode()).decode())
        try:
            with urlopen(request, timeout=10) as response:  # noqa: S310
                return parse(json.loads(json.load(response)["schema"]))
        except HTTPError as e:
            with e:
                if e.code == NOT_FOUND:
                    return None
            raise RegistryAwayError(f"{url} answers {e.code} when asked for schema {number}") from None
        except (OSError, HTTPException, ValueError) as e:
            raise RegistryAwayError(f"{url} cannot be asked for schema {number}: {e}") from None

    def schema(number: int) -> Schema:
        if number not in known:
            known[number] = ask(number)
        if known[number] is None:
            raise LookupError(f"no schema {number}")
        return known[number]

    return schema


def reader_schema(event: str, folder: Path) -> Schema:
    """Return the schema of that full name among the .avsc files of a folder."""
    for path in sorted(folder.glob("*.avsc")):
        schema = json.loads(path.read_text())
        if f"{schema.get('namespace', '')}.{schema['name']}".removeprefix(".") == event:
            return parse(schema)
    raise LookupError(f"no schema {event} in {folder}")


def parse(schema: Any) -> Schema:
    """Return a schema ready to decode with, logical types taken off: times stay epoch milliseconds."""
    return fastavro.parse_schema(_plain(schema))


def _plain(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if isinstance(schema, dict):
        kept = {name: part for name, part in schema.items() if name != "logicalType"}
        return {name: part if name == "default" else _plain(part) for name, part in kept.items()}
    return schema


def unframed(value: bytes, schemas: SchemaById, reader: Schema | None) -> dict[str, Any]:
    """Return a value in Confluent's framing as a record of the reader's schema.

    Raises:
        Exception: of any kind, when it is none.
    """
    if len(value) < 5 or value[0] != 0:
        raise ValueError("not framed")
    body = io.BytesIO(value[5:])
    event = fastavro.schemaless_reader(body, schemas(int.from_bytes(value[1:5], "big")), reader)
    if body.read(1):
        raise ValueError("bytes after the datum")
    if not isinstance(event, dict):
        raise TypeError("not a record")
    return event


def _number(headers: Headers, name: str) -> int | None:
    """Return the first header of that name as a 64-bit number, or None where it is none."""
    for header, value in headers:
        if header == name:
            if value is None or not re.fullmatch(rb"-?[0-9]+", value):
                return None
            number = int(value)
            return number if -(1 << 63) <= number < 1 << 63 else None
    return None
