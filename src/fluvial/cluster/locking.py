"""Write ``jars.lock`` anew: ``python -m fluvial.cluster.locking`` after a change of a version below.

This resolves the servers' dependency trees, which running a cluster never does.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial.caches import cache_dir
from fluvial.cluster.artifacts import DOWNLOAD_TIMEOUT_SECONDS, PARALLEL_DOWNLOADS, sha256_of

if TYPE_CHECKING:
    pass

# jgo's coordinates are group:name:version, or group:name:packaging:classifier:version.
ROOTS = {
    "kafka": ("org.apache.kafka:kafka_2.13:4.3.1", "ch.qos.logback:logback-classic:1.5.18"),
    "cassandra": ("org.apache.cassandra:cassandra-all:5.0.9",),
}
REGISTRY = ("io.apicurio", "apicurio-registry-app", "tar.gz", "all", "3.3.3")
# Native parts of platforms that the servers are not run on, and of TLS, which the local servers do not use.
LEFT_OUT = ("riscv64", "windows", "osx-x86_64", "netty-tcnative-boringssl-static:jar:")

HEADER = """\
# Every file that `fluvial up` runs: group:name:packaging[:classifier]:version = SHA-256.
# Written by `python -m fluvial.cluster.locking`.
"""


def main() -> None:
    """Resolve, hash and write."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=cache_dir() / "maven", timeout=DOWNLOAD_TIMEOUT_SECONDS)
    sections = [HEADER]
    for group, roots in ROOTS.items():
        inputs, transitive = context.resolver.resolve([context.create_dependency(c) for c in roots])
        sections.append(_section(group, [d.artifact for d in (*inputs, *transitive)]))
    group_id, name, packaging, classifier, version = REGISTRY
    archive = context.project(group_id, name).at_version(version).artifact(classifier, packaging)
    sections.append(_section("registry", [archive]))
    target = Path(__file__).with_name("jars.lock")
    target.write_text("\n".join(sections))
    sys.stderr.write(f"wrote {target}\n")


def _section(group: str, artifacts: list[Any]) -> str:
    coordinates = {
        ":".join(x for x in (a.groupId, a.artifactId, a.packaging, a.classifier, a.version) if x): a for a in artifacts
    }
    kept = {c: a for c, a in sorted(coordinates.items()) if not any(part in c for part in LEFT_OUT)}
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        hashes = list(pool.map(lambda a: sha256_of(Path(a.resolve())), kept.values()))
    lines = [f'"{c}" = "{h}"' for c, h in zip(kept, hashes, strict=True)]
    return "\n".join([f"[{group}]", *lines, ""])


if __name__ == "__main__":
    main()
