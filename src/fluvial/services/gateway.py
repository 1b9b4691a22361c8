"""Putting a gateway together: topics, registry, publisher, keys, its HTTP and its gRPC side, and a clean end."""

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import uvicorn

from fluvial.errors import FluvialError, SettingsError
from fluvial.producers.gateway.auth import authenticator
from fluvial.producers.gateway.gate import Gate
from fluvial.producers.gateway.grpc_service import grpc_server, set_serving
from fluvial.producers.gateway.http_app import http_app
from fluvial.producers.gateway.intake import TopicIntake
from fluvial.producers.gateway.mqtt import MqttBridge
from fluvial.producers.gateway.mqtt_rejected import RejectedMessages
from fluvial.producers.gateway.mqtt_routes import parse_routes
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.registry import Registry
from fluvial.services.intakes import intakes
from fluvial.services.partitions import partition_counts
from fluvial.services.stopping import asked_to_stop
from fluvial.settings import GatewaySettings, Settings
from fluvial.transport.publisher import Publisher

log = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 5.0


class GatewayError(FluvialError):
    """A gateway cannot serve."""


async def run_gateway(settings: Settings, catalog: Catalog) -> None:
    """Serve until SIGINT or SIGTERM; then stop accepting, answer what is there, and return.

    Raises:
        GatewayError, SettingsError: an address is taken or not safe.
        FluvialError: Kafka's topics or the registry's schemas are not there.
    """
    ours = settings.gateway
    _check(ours)
    authenticate = authenticator(ours)
    with Registry(settings.registry) as registry:
        topics = await asyncio.to_thread(intakes, settings, catalog, registry)
        await asyncio.to_thread(partition_counts, settings.kafka, set(topics))
        async with Publisher(settings.kafka) as publisher:
            gate = Gate(
                publisher,
                topics,
                max_in_flight=ours.max_in_flight,
                ack_timeout_seconds=ours.ack_timeout_seconds,
                events_per_second=ours.events_per_second,
            )

            async def ready() -> str | None:
                if publisher.fatal is not None:
                    return f"the producer has failed for good, start the gateway again: {publisher.fatal}"
                try:
                    async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                        await asyncio.to_thread(partition_counts, settings.kafka, set(topics))
                except (FluvialError, TimeoutError) as e:
                    return f"Kafka does not answer: {e or 'in time'}"
                return None

            app = http_app(gate, authenticate, ready, max_body_bytes=ours.max_body_bytes)
            http = _QuietServer(uvicorn.Config(app, **_http_options(ours)))
            rpc, health = grpc_server(
                gate, authenticate, window_bytes=ours.window_bytes, max_message_bytes=ours.max_body_bytes
            )
            _bind(rpc, ours)
            await rpc.start()
            await set_serving(health, True)
            log.info("gateway: HTTP at %s, gRPC at %s, topics %s", ours.http_url, ours.grpc_target, ", ".join(topics))
            try:
                async with _bridged(gate, topics, ours):
                    await _serve(http, ours)
            finally:
                gate.closing = True
                await set_serving(health, False)
                await rpc.stop(ours.drain_seconds)
            log.info("gateway: everything accepted is in Kafka")


@contextlib.asynccontextmanager
async def _bridged(gate: Gate, topics: dict[str, TopicIntake], ours: GatewaySettings) -> AsyncIterator[None]:
    """Bridge from an MQTT broker meanwhile, where one is named."""
    if ours.mqtt_url is None:
        yield
        return
    if urlsplit(ours.mqtt_url).scheme not in ("mqtt", "mqtts") or not urlsplit(ours.mqtt_url).hostname:
        raise SettingsError(f"gateway.mqtt_url {ours.mqtt_url}: not mqtt://host:port", hint="correct it")
    routes = parse_routes(ours.mqtt_routes, {t: [f.name for f in i.fields] for t, i in topics.items()})
    bridge = MqttBridge(
        gate, routes, RejectedMessages(ours.mqtt_rejected).keep, url=ours.mqtt_url, client_id=ours.mqtt_client_id,
        group=ours.mqtt_group, username=ours.mqtt_username, ca=ours.mqtt_ca,
        password=ours.mqtt_password.get_secret_value() if ours.mqtt_password else None,
    )  # fmt: skip
    stop = asyncio.Event()
    running = asyncio.create_task(bridge.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def _serve(http: "_QuietServer", ours: GatewaySettings) -> None:
    async def end(asked: asyncio.Event) -> None:
        await asked.wait()
        http.should_exit = True

    with asked_to_stop() as asked:
        ending = asyncio.create_task(end(asked))
        try:
            await http.serve()
        except SystemExit:  # uvicorn's way to say that it cannot start
            raise GatewayError(
                f"cannot serve HTTP at {ours.http_url}", hint="is it taken? choose another gateway.http_url"
            ) from None
        finally:
            ending.cancel()


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain gRPC and the publisher as well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http_options(ours: GatewaySettings) -> dict[str, Any]:
    where = urlsplit(ours.http_url)
    options: dict[str, Any] = {
        "host": where.hostname, "port": where.port, "log_config": None, "access_log": False, "lifespan": "off",
        "timeout_graceful_shutdown": int(ours.drain_seconds), "timeout_keep_alive": 75, "server_header": False,
    }  # fmt: skip
    if ours.tls_cert:
        options |= {"ssl_certfile": str(ours.tls_cert), "ssl_keyfile": str(ours.tls_key)}
        if ours.tls_client_ca:
            options |= {"ssl_ca_certs": str(ours.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def _bind(rpc: Any, ours: GatewaySettings) -> None:
    try:
        if ours.tls_cert and ours.tls_key:
            ca = ours.tls_client_ca.read_bytes() if ours.tls_client_ca else None
            pair = (ours.tls_key.read_bytes(), ours.tls_cert.read_bytes())
            credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)
            rpc.add_secure_port(ours.grpc_target, credentials)
        else:
            rpc.add_insecure_port(ours.grpc_target)
    except (RuntimeError, OSError) as e:
        raise GatewayError(
            f"cannot serve gRPC at {ours.grpc_target}: {e}", hint="is it taken? choose another gateway.grpc_target"
        ) from None


def _check(ours: GatewaySettings) -> None:
    url = urlsplit(ours.http_url)
    if url.scheme != ("https" if ours.tls_cert else "http") or url.hostname is None or url.port is None:
        raise SettingsError(
            f"gateway.http_url {ours.http_url}: not http://host:port (https with gateway.tls_cert)", hint="correct it"
        )
    if (ours.tls_cert is None) != (ours.tls_key is None) or (ours.tls_client_ca and not ours.tls_cert):
        raise SettingsError("gateway.tls_cert and tls_key belong together", hint="set both; tls_client_ca needs them")
    hosts = (url.hostname, ours.grpc_target.rpartition(":")[0].strip("[]"))
    if ours.auth == "none" and not all(_is_loopback(h) for h in hosts):
        raise SettingsError(
            f"gateway.auth is none, but {', '.join(hosts)} can be reached from elsewhere",
            hint="use keys, or a loopback address",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
