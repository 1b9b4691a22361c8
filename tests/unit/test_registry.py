"""The registry's client: what is cached, what is an unknown schema, and what is only a registry that is away."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fluvial.errors import SchemaError
from fluvial.schemas.avro import load_schema
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.registry import Registry
from fluvial.schemas.sources import RegistryUnavailableError, UnknownSchemaError
from fluvial.settings import RegistrySettings
from support.batches import framed, records_of
from support.fake_registry import FakeRegistry, fake_registry

READING = load_schema("fluvial.iot.SensorReading")
SUBJECT = "iot.readings-value"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(server: FakeRegistry, clock: Clock) -> Iterator[Registry]:
    with Registry(RegistrySettings(url=server.url), timeout_seconds=2, retries=0, clock=clock) as registry:
        yield registry


def test_a_registered_schema_has_an_id_and_its_subject_the_strictest_compatibility(
    server: FakeRegistry, client: Registry
) -> None:
    schema_id = client.register(SUBJECT, READING)
    assert client.register(SUBJECT, READING) == schema_id == client.schema_id(SUBJECT, READING)
    assert client.by_id(schema_id) == READING
    assert server.levels == {SUBJECT: "BACKWARD_TRANSITIVE"}


def test_a_known_schema_is_asked_for_once(server: FakeRegistry, client: Registry) -> None:
    server.add(4, json.dumps(READING))
    for _ in range(3):
        client.by_id(4)
    assert len(server.requests) == 1


def test_an_unknown_id_is_asked_for_again_after_a_while(server: FakeRegistry, client: Registry, clock: Clock) -> None:
    server.subjects["other"] = []
    for _ in range(3):
        with pytest.raises(UnknownSchemaError, match="unknown schema id 4"):
            client.by_id(4)
    assert server.requests.count("GET /schemas/ids/4") == 1
    server.add(4, json.dumps(READING))
    clock.now = 31.0
    assert client.by_id(4) == READING


def test_a_registry_without_subjects_may_be_loading_and_calls_nothing_unknown(client: Registry) -> None:
    with pytest.raises(RegistryUnavailableError, match="may still be loading"):
        client.by_id(4)


def test_an_id_beyond_the_registrys_range_is_unknown_without_asking(server: FakeRegistry, client: Registry) -> None:
    with pytest.raises(UnknownSchemaError):
        client.by_id(1 << 31)
    assert server.requests == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_registry_that_fails_is_unavailable_and_no_unknown_schema(
    server: FakeRegistry, client: Registry, status: int
) -> None:
    server.fail_with = status
    with pytest.raises(RegistryUnavailableError, match="gives no answer about schema id 4"):
        client.by_id(4)
    server.fail_with = None
    server.add(4, json.dumps(READING))
    assert client.by_id(4) == READING


def test_a_registry_that_is_gone_is_unavailable_for_the_decoder_too() -> None:
    with Registry(RegistrySettings(url="http://127.0.0.1:1"), timeout_seconds=1, retries=0) as client:
        decoder = Decoder(READING, client)
        with pytest.raises(RegistryUnavailableError, match=r"see that it runs"):
            decoder.decode(records_of([framed(4, b"\x00")]))


def test_a_subject_that_is_not_there_tells_to_run_init(client: Registry) -> None:
    with pytest.raises(SchemaError, match="run `fluvial init`"):
        client.schema_id(SUBJECT, READING)


def test_a_schema_of_another_kind_is_refused(server: FakeRegistry, client: Registry) -> None:
    server.add(4, "syntax = 'proto3'", schemaType="PROTOBUF")
    with pytest.raises(SchemaError, match="schema id 4 is PROTOBUF"):
        client.by_id(4)


def test_references_are_put_where_they_are_first_used(server: FakeRegistry, client: Registry) -> None:
    place = {"type": "record", "name": "a.Place", "fields": [{"name": "x", "type": "long"}]}
    fields: list[dict[str, Any]] = [{"name": "at", "type": "a.Place"}, {"name": "to", "type": ["null", "a.Place"]}]
    trip = {"type": "record", "name": "a.Trip", "fields": fields}
    server.add(1, json.dumps(place))
    server.subjects["place"] = [1]
    references = [{"name": "a.Place", "subject": "place", "version": 1}]
    server.add(2, json.dumps(trip), references=references)
    assert client.by_id(2)["fields"] == [{"name": "at", "type": place}, {"name": "to", "type": ["null", "a.Place"]}]
