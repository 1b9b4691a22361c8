"""Settings: command-line flag > environment (FLUVIAL_KAFKA__BROKERS) > fluvial.toml > the local cluster's file > default.

Unknown names are refused wherever they come from. Only the composition root (``fluvial.services`` and the command line)
calls `load_settings`; everything else is handed the part that it needs.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from fluvial.errors import SettingsError

ENV_PREFIX = "FLUVIAL_"
CLUSTER_FILE = "cluster.json"
# Read by tools of this repository, not settings of a service.
NOT_SETTINGS = {
    "FLUVIAL_CACHE_DIR",
    "FLUVIAL_CLUSTER_DIR",
    "FLUVIAL_CONFIG",
    "FLUVIAL_FAILPOINTS",
    "FLUVIAL_FEED_TOKEN",
    "FLUVIAL_JAVA",
    "FLUVIAL_KEY",
    "FLUVIAL_TEST_CLUSTER_DIR",
    "FLUVIAL_TEST_SERVERS",
}

Consistency = Literal["ONE", "LOCAL_ONE", "TWO", "QUORUM", "LOCAL_QUORUM", "EACH_QUORUM", "ALL"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class KafkaSettings(_Section):
    """How to reach Kafka, and what is promised about what is written there."""

    brokers: str = Field("127.0.0.1:9092", description="bootstrap servers, host:port, comma separated")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: str | None = Field(None, description="path of the CA certificate, PEM")
    partitions: int = Field(4, ge=1, description="partitions of the topics that `fluvial init` creates")
    replication_factor: int = Field(1, ge=1, description="replicas of the topics that `fluvial init` creates")
    min_insync_replicas: int = Field(1, ge=1, description="replicas that must have a record before it is acknowledged")
    session_seconds: float = Field(
        15.0, ge=6, description="how long a worker or sink may be silent before others get its partitions"
    )
    retention_hours: int = Field(168, ge=-1, description="how long event topics keep records; -1 is for ever")


class RegistrySettings(_Section):
    """The schema registry (Confluent's API: Confluent, Karapace, Apicurio's ccompat)."""

    url: str = "http://127.0.0.1:8081"
    username: str | None = None
    password: SecretStr | None = None


class CassandraSettings(_Section):
    """How to reach Cassandra, and at which consistency level."""

    contact_points: str = Field("127.0.0.1", description="hosts, comma separated")
    port: int = 9042
    keyspace: str = Field("fluvial", pattern=r"^[a-z][a-z0-9_]{0,47}$")
    local_datacenter: str = "datacenter1"
    replication_factor: int = Field(1, ge=1)
    username: str | None = None
    password: SecretStr | None = None
    ssl_ca_location: str | None = Field(None, description="path of the CA certificate, PEM; set, TLS is used")
    write_consistency: Consistency = "LOCAL_QUORUM"
    read_consistency: Consistency = "LOCAL_QUORUM"
    request_timeout_seconds: float = Field(10.0, gt=0)


class WorkerSettings(_Section):
    """The processors."""

    group: str = Field("fluvial-worker", description="consumer group; also names its checkpoints")
    instance_id: str | None = Field(
        "auto",
        description="static group membership: a restart within kafka.session_seconds keeps its partitions. auto: a name "
        "of this machine that is free; or a lasting name that no other process has; empty: dynamic membership",
    )
    pipelines: str = Field(
        "", description="names of the pipelines to run, comma separated; empty runs all declared ones"
    )
    declarations: str = Field("", description="files or modules with more pipeline declarations, comma separated")
    generation: int = Field(0, ge=0, lt=1 << 19, description="raised by a reprocessing, so that its rows win")
    checkpoint_seconds: float = Field(10.0, gt=0)
    max_ahead_seconds: float = Field(
        300.0, gt=0, description="an event further ahead of its broker timestamp is a dead letter"
    )
    dead_letter_ratio: float = Field(
        0.5, gt=0, le=1, description="stop when this share of the last 10,000 records is bad"
    )
    dead_letter_run: int = Field(10_000, ge=1, description="stop after so many bad records in a row")
    stall_seconds: float = Field(
        120.0, gt=0, description="a partition with records waiting that does not move is stalled"
    )
    web_port: int | None = Field(None, description="Faust's web server; unset: off")
    tick_seconds: float = Field(1.0, gt=0, description="how often the ticker tells each partition the time")


class SinkSettings(_Section):
    """Result topics to Cassandra."""

    group: str = "fluvial-sink"
    instance_id: str | None = Field("auto", description="as worker.instance_id")
    rows_per_batch: int = Field(100, ge=1, le=1000)
    max_in_flight: int = Field(256, ge=1, description="upper bound of concurrent batches; the limit adapts below it")
    raw_readings: bool = Field(False, description="also write every reading to sensor_readings")
    raw_retention_days: int = Field(30, ge=0, description="how long sensor_readings keeps a reading; 0 is for ever")
    web_port: int | None = None


class GatewaySettings(_Section):
    """The ingest edge: gRPC and HTTP."""

    http_url: str = Field("http://127.0.0.1:8070", description="where HTTP is served, and where clients find it")
    grpc_target: str = Field("127.0.0.1:8071", description="where gRPC is served, and where clients find it")
    auth: Literal["keys", "none"] = Field(
        "keys", description="keys: API keys and JWTs; none: anyone, on a loopback address only"
    )
    keys_file: Path = Field(Path("fluvial-keys.json"), description="API keys, hashed; `fluvial keys` writes it")
    jwt_public_key: str | None = Field(None, description="path of the PEM public key of the issuer of JWTs")
    jwt_issuer: str | None = Field(None, description="the issuer that a JWT must name")
    jwt_audience: str | None = Field(None, description="the audience that a JWT must name")
    pseudonyms: str = Field(
        "social.posts:author_id", description="fields that keyed pseudonyms replace before the log: topic:field, …"
    )
    pseudonym_keys: Path = Field(
        Path("fluvial-pseudonyms.keys"), description="their keys, the last line in use; the same for every gateway"
    )
    dropped_fields: str = Field("", description="fields that are left out before the log: topic:field, …")
    tls_cert: Path | None = Field(None, description="certificate chain, PEM; set, TLS is served")
    tls_key: Path | None = Field(None, description="its private key, PEM")
    tls_client_ca: Path | None = Field(
        None, description="clients must show a certificate of this CA, PEM (mutual TLS), beside their key"
    )
    max_body_bytes: int = Field(8 << 20, ge=1024, description="largest batch, packed and unpacked")
    max_in_flight: int = Field(100_000, ge=1, description="events that may wait for Kafka; more are told to come later")
    ack_timeout_seconds: float = Field(
        30.0, gt=0, description="how long a batch waits for Kafka before its outcome is called unknown"
    )
    window_bytes: int = Field(4 << 20, ge=1024, description="what one gRPC stream may have unacknowledged")
    events_per_second: float = Field(0, ge=0, description="each key's rate, unless it has its own; 0 is any")
    mqtt_url: str | None = Field(None, description="an MQTT broker to bridge from: mqtt://host:1883 or mqtts://…")
    mqtt_routes: str = Field(
        "", description="what goes where: plants/{site}/{sensor_id}/{metric}=iot.readings, spBv1.0/#=iot.readings"
    )
    mqtt_group: str = Field("fluvial", description="bridges of one group share the broker's messages")
    mqtt_client_id: str = Field("fluvial-1", description="this bridge's lasting name at the broker")
    mqtt_username: str | None = None
    mqtt_password: SecretStr | None = None
    mqtt_ca: str | None = Field(None, description="path of the broker's CA certificate, PEM")
    mqtt_rejected: Path = Field(Path("mqtt.rejected.ndjson"), description="where messages that are no events are kept")
    drain_seconds: float = Field(30.0, gt=0, description="how long requests may take to end after SIGTERM")


class Settings(_Section):
    """All settings of one deployment."""

    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    cassandra: CassandraSettings = CassandraSettings()
    worker: WorkerSettings = WorkerSettings()
    sink: SinkSettings = SinkSettings()
    gateway: GatewaySettings = GatewaySettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else JSON")


def cluster_dir() -> Path:
    """Return the local cluster's directory: FLUVIAL_CLUSTER_DIR, or ``.fluvial`` here."""
    return Path(os.environ.get("FLUVIAL_CLUSTER_DIR", ".fluvial"))


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
    cluster_file: Path | None = None,
) -> Settings:
    """Merge every source of settings and validate the result.

    ``flags`` are dotted names (``{"kafka.brokers": "…"}``; None values are ignored). ``config_file`` defaults to
    FLUVIAL_CONFIG or ``./fluvial.toml`` when that exists, ``cluster_file`` to the running local cluster's.

    Raises:
        SettingsError: unknown name or bad value, naming its source.
    """
    environ = os.environ if environ is None else environ
    if config_file is None:
        named = environ.get("FLUVIAL_CONFIG")
        config_file = Path(named) if named else Path("fluvial.toml")
        if named and not config_file.exists():
            raise SettingsError(f"FLUVIAL_CONFIG names {named}, which does not exist", hint="correct or unset it")
    cluster_file = cluster_file or cluster_dir() / CLUSTER_FILE
    sources: list[tuple[str, dict[str, Any]]] = []
    if cluster_file.exists():
        sources.append((str(cluster_file), _cluster_settings(cluster_file)))
    if config_file.exists():
        try:
            sources.append((str(config_file), tomllib.loads(config_file.read_text())))
        except tomllib.TOMLDecodeError as e:
            raise SettingsError(f"{config_file}: {e}", hint="mend the TOML syntax") from None
    env = {
        k[len(ENV_PREFIX) :].lower().replace("__", "."): v
        for k, v in environ.items()
        if k.startswith(ENV_PREFIX) and k not in NOT_SETTINGS
    }
    sources.append(("the environment", _nest(env)))
    sources.append(("the command line", _nest({k: v for k, v in (flags or {}).items() if v is not None})))
    merged: dict[str, Any] = {}
    for name, values in sources:
        _merge(merged, values)
        try:
            settings = Settings.model_validate(merged)
        except ValidationError as e:
            problem = e.errors()[0]
            where = ".".join(str(x) for x in problem["loc"])
            if problem["type"] == "extra_forbidden":
                raise SettingsError(
                    f"unknown setting {where!r} in {name}", hint="`fluvial config` lists all settings"
                ) from None
            raise SettingsError(
                f"setting {where!r} in {name}: {problem['msg']}", hint="`fluvial config` shows defaults"
            ) from None
    return settings


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain data with every secret masked."""
    dumped: dict[str, Any] = json.loads(settings.model_dump_json())
    return dumped


def _cluster_settings(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    settings = data.get("settings", {})
    return dict(settings)


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        at = out
        for s in sections:
            at = at.setdefault(s, {})
        at[leaf] = value
    return out


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for k, v in values.items():
        if isinstance(v, Mapping) and isinstance(into.get(k), dict):
            _merge(into[k], v)
        else:
            into[k] = dict(v) if isinstance(v, Mapping) else v
