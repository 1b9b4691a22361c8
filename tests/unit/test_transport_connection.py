"""One KafkaSettings, librdkafka's configuration and Faust's credentials."""

import ssl

import faust
import pytest
from pydantic import SecretStr

from fluvial.errors import SettingsError
from fluvial.settings import KafkaSettings
from fluvial.transport.app import BatchTopic, batch_app
from fluvial.transport.connection import bootstrap_servers, librdkafka_config, ssl_context

PLAIN = KafkaSettings(brokers="a:1, b:2")
TLS = KafkaSettings(security_protocol="SSL")
SASL = KafkaSettings(
    security_protocol="SASL_SSL",
    sasl_mechanism="SCRAM-SHA-512",
    sasl_username="worker",
    sasl_password=SecretStr("secret"),
)


def test_plain_text_needs_no_more_than_the_brokers() -> None:
    assert librdkafka_config(PLAIN) == {"bootstrap.servers": "a:1, b:2", "security.protocol": "PLAINTEXT"}
    assert bootstrap_servers(PLAIN) == ["a:1", "b:2"]
    assert ssl_context(PLAIN) is None


def test_tls_verifies_the_brokers_certificate() -> None:
    context = ssl_context(TLS)
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_sasl_gives_the_client_the_user_and_the_mechanism() -> None:
    assert librdkafka_config(SASL) | {"bootstrap.servers": ""} == {
        "bootstrap.servers": "",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "worker",
        "sasl.password": "secret",
    }


def test_sasl_without_a_password_is_refused() -> None:
    with pytest.raises(SettingsError, match="the user or the password is missing"):
        librdkafka_config(KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_username="worker"))


def test_a_faust_app_gets_the_same_credentials() -> None:
    def credentials(kafka: KafkaSettings) -> object:
        return batch_app("g", kafka, topics=[BatchTopic("t")]).conf.broker_credentials

    assert credentials(PLAIN) is None
    assert isinstance(credentials(TLS), faust.SSLCredentials)
    sasl = credentials(SASL)
    assert isinstance(sasl, faust.SASLCredentials)
    assert (sasl.protocol.value, sasl.mechanism.value, sasl.username, sasl.password) == (
        "SASL_SSL",
        "SCRAM-SHA-512",
        "worker",
        "secret",
    )


def test_a_faust_app_reads_in_batches_from_all_brokers_and_produces_with_the_stock_transport() -> None:
    conf = batch_app("g", PLAIN, topics=[BatchTopic("t")]).conf
    assert [str(u) for u in conf.broker_consumer] == ["kafka+batch://a:1", "kafka+batch://b:2"]
    assert [str(u) for u in conf.broker_producer] == ["kafka://a:1", "kafka://b:2"]
