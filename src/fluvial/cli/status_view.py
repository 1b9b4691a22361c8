"""How ``fluvial status`` is printed."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from fluvial.cli.console import columns
from fluvial.cluster import ServerStatus
from fluvial.services.status import Away, CassandraStatus, KafkaStatus, RegistryStatus, Status


def as_json(servers: Sequence[ServerStatus], status: Status) -> str:
    """Return everything as one JSON object; what is away is ``{"reason": …}``."""
    return json.dumps({"servers": [asdict(s) for s in servers], **asdict(status)}, indent=2, default=str)


def as_text(servers: Sequence[ServerStatus], status: Status) -> str:
    """Return everything as aligned columns."""
    parts = [_servers(servers)] if servers else []
    parts.append(_away("Kafka", status.kafka) if isinstance(status.kafka, Away) else _kafka(status.kafka))
    parts.append(
        _away("Registry", status.registry) if isinstance(status.registry, Away) else _registry(status.registry)
    )
    parts.append(
        _away("Cassandra", status.cassandra) if isinstance(status.cassandra, Away) else _cassandra(status.cassandra)
    )
    return "\n\n".join(parts)


def _servers(servers: Sequence[ServerStatus]) -> str:
    rows = [
        (
            s.name,
            "running" if s.running else "stopped",
            s.pid or "",
            ", ".join(f"{purpose} {port}" for purpose, port in s.ports.items()),
            f"{s.memory_mb:.0f} MiB" if s.memory_mb else "",
        )
        for s in servers
    ]
    return columns(("SERVER", "STATE", "PID", "PORTS", "MEMORY"), rows)


def _away(name: str, away: Away) -> str:
    return f"{name} is away: {away.reason}"


def _kafka(kafka: KafkaStatus) -> str:
    lines = [f"Kafka: {', '.join(kafka.brokers)}"]
    if kafka.topics:
        rows = [(t.name, t.partitions, t.replicas, t.under_replicated or "", f"{t.records:,}") for t in kafka.topics]
        lines += ["", columns(("TOPIC", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED", "RECORDS"), rows)]
    if kafka.groups:
        lines += [
            "",
            columns(
                ("GROUP", "STATE", "TOPIC", "LAG"), [(g.group, g.state, g.topic, f"{g.lag:,}") for g in kafka.groups]
            ),
        ]
    return "\n".join(lines)


def _registry(registry: RegistryStatus) -> str:
    return f"Registry: {registry.url}, {len(registry.subjects)} subjects"


def _cassandra(cassandra: CassandraStatus) -> str:
    nodes = columns(
        ("NODE", "STATE", "DATACENTER", "VERSION"),
        [(n.address, "up" if n.up else "down", n.datacenter, n.version) for n in cassandra.nodes],
    )
    if not cassandra.tables:
        return f"{nodes}\n\nKeyspace {cassandra.keyspace}: no tables yet; `fluvial init` creates them"
    rows = [(f"{cassandra.keyspace}.{t.name}", "" if t.mebibytes is None else t.mebibytes) for t in cassandra.tables]
    return f"{nodes}\n\n{columns(('TABLE', 'MIB'), rows)}"
