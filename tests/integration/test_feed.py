"""`fluvial feed` on a real Kafka: it goes on where it was, and authors are not in the log."""

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from fluvial.schemas.provision import init as provision
from fluvial.services.declared import load_catalog
from fluvial.settings import Settings
from support.programs import FLUVIAL
from support.transport import ends

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_feed_goes_on_after_the_last_acknowledged_line(cluster_settings: Settings, tmp_path: Path) -> None:
    s = cluster_settings
    provision(s.kafka, s.registry, s.cassandra, s.worker.group, load_catalog(s.worker))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_")} | {
        "FLUVIAL_KAFKA__BROKERS": s.kafka.brokers,
        "FLUVIAL_REGISTRY__URL": s.registry.url,
    }
    name, path = f"feed-{uuid.uuid4().hex[:8]}", tmp_path / "posts.ndjson"

    def add(first: int, n: int) -> None:
        with path.open("a") as file:
            for i in range(first, first + n):
                post = {
                    "post_id": f"{name}-{i}",
                    "author_id": f"{name}-alice",
                    "network": "test",
                    "text": f"#hello {i}",
                }
                file.write(json.dumps({**post, "event_time": time.time_ns() // 1_000_000}) + "\n")

    def feed() -> str:
        done = subprocess.run(
            [FLUVIAL, "feed", "ndjson", "--file", str(path), "--name", name], env=environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = sum(ends(s.kafka, "social.posts", s.kafka.partitions))
    add(0, 700)
    assert feed().startswith("700 posts and 0 deletions acknowledged; 0 rejected")
    assert feed().startswith("0 posts")
    add(700, 5)
    assert feed().startswith("5 posts")
    assert sum(ends(s.kafka, "social.posts", s.kafka.partitions)) - before >= 705
