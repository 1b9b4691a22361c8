"""The peers' jars: pinned by ``java/jars.lock``, kept in the cache of the servers' jars.

``python tests/bench/jars.py`` resolves the versions below and writes the lock anew; the bench itself never resolves.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fluvial.caches import cache_dir
from fluvial.cluster.artifacts import (
    DOWNLOAD_TIMEOUT_SECONDS,
    PARALLEL_DOWNLOADS,
    Artifact,
    read_lock,
    resolve,
    sha256_of,
)
from fluvial.errors import ClusterError

LOCK = Path(__file__).with_name("java") / "jars.lock"
AVRO = "org.apache.avro:avro:1.12.0"
ROOTS = {
    "kafka-streams": ("org.apache.kafka:kafka-streams:4.3.1", AVRO),
    "flink": (
        "org.apache.flink:flink-streaming-java:1.20.1",
        "org.apache.flink:flink-clients:1.20.1",
        "org.apache.flink:flink-connector-base:1.20.1",
        "org.apache.flink:flink-connector-kafka:3.4.0-1.20",
        AVRO,
    ),
}
HEADER = """\
# The jars of the peers that `make bench` measures: group:name:packaging[:classifier]:version = SHA-256.
# Written by `python tests/bench/jars.py`.
"""


def jars_of(peer: str) -> list[Path]:
    """Return the verified jars of a peer, fetching what is missing.

    Raises:
        ClusterError: a jar cannot be had or differs from the lock.
    """
    found: list[Path] = resolve(read_lock(LOCK.read_text())[peer])
    return found


def compiler_jar() -> Path:
    """Return the jar of ecj, a Java compiler that is among Cassandra's dependencies.

    Raises:
        ClusterError: the servers' lock has none, or it cannot be had.
    """
    found = [a for a in read_lock()["cassandra"] if a.name == "ecj"]
    if not found:
        raise ClusterError("the servers' jars.lock has no ecj", hint="name another compiler in tests/bench/jars.py")
    [jar] = resolve(found)
    return Path(jar)


def main() -> None:
    """Resolve the peers' dependencies, hash them and write the lock."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=cache_dir() / "maven", timeout=DOWNLOAD_TIMEOUT_SECONDS)
    sections = [HEADER]
    for peer, roots in ROOTS.items():
        inputs, transitive = context.resolver.resolve([context.create_dependency(c) for c in roots])
        sections.append(_section(peer, [d.artifact for d in (*inputs, *transitive)]))
    LOCK.write_text("\n".join(sections))
    sys.stderr.write(f"wrote {LOCK}\n")


def _section(peer: str, found: list[Any]) -> str:
    jars = {
        Artifact(a.groupId, a.artifactId, a.packaging, a.classifier or "", a.version, "-").coordinate: a for a in found
    }
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        hashes = list(pool.map(lambda c: sha256_of(Path(jars[c].resolve())), sorted(jars)))
    lines = [f'"{c}" = "{h}"' for c, h in zip(sorted(jars), hashes, strict=True)]
    return "\n".join([f"[{peer}]", *lines, ""])


if __name__ == "__main__":
    main()
