"""Topics archived from a real Kafka: exact, resumed, explained where records are gone."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from fluvial.archive.layout import ArchiveError, archived_files
from fluvial.archive.reader import archived_bounds, archived_partitions, read_archive
from fluvial.services.archiving import Archiver, Rolling
from fluvial.settings import KafkaSettings
from fluvial.transport.available import FromAvailable
from fluvial.transport.connection import librdkafka_config
from fluvial.transport.headers import all_headers
from support.programs import FLUVIAL
from support.transport import ends, eventually, fresh_topic, produce, transaction

pytestmark = pytest.mark.integration


async def archive(kafka: KafkaSettings, topic: str, to: Path, *accepted: str, file_bytes: int = 1 << 20) -> Archiver:
    archiver = Archiver(
        kafka, [topic], to, from_available=FromAvailable(accepted), rolling=Rolling(file_bytes=file_bytes)
    )
    await asyncio.wait_for(archiver.run(asyncio.Event(), follow=False), 60)
    return archiver


def offsets(directory: Path, topic: str, partition: int = 0, start: int = 0) -> list[int]:
    return [int(o) for r in read_archive(directory, topic, partition, start=start) for o in r.offset]


def delete_before(kafka: KafkaSettings, topic: str, offset: int) -> None:
    admin = AdminClient(librdkafka_config(kafka))
    for deleted in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        deleted.result(30)


async def test_every_record_of_every_kind_is_archived_as_it_is(kafka: KafkaSettings, tmp_path: Path) -> None:
    with fresh_topic(kafka, partitions=2) as topic:
        producer = Producer(librdkafka_config(kafka) | {"linger.ms": 20, "compression.type": "lz4"})
        sent = []
        for i in range(500):
            key, value = (None if i % 7 == 0 else b"k%d" % i), (None if i % 5 == 0 else b"v" * (i % 50))
            headers = [("a", b"%d" % i), ("n", None)] if i % 3 == 0 else []
            producer.produce(topic, value, key, partition=1, headers=headers, timestamp=1_000 + i)
            sent.append((i, 1_000 + i, key, value, headers))
        producer.flush(30)
        with transaction(kafka, commit=False) as aborted:
            aborted.produce(topic, b"never", partition=1)
        with transaction(kafka, commit=True) as done:
            done.produce(topic, b"yes", b"t", partition=1, timestamp=5)
        sent.append((502, 5, b"t", b"yes", []))
        archiver = await archive(kafka, topic, tmp_path, file_bytes=2_000)
        found = [
            (int(r.offset[i]), int(r.timestamp[i]), r.key.bytes_at(i), r.value.bytes_at(i), all_headers(r, i))
            for r in read_archive(tmp_path, topic, 1)
            for i in range(len(r))
        ]
        assert found == sent
        assert archived_bounds(tmp_path, topic, 1) == (0, ends(kafka, topic, 2)[1])
        assert archived_partitions(tmp_path, topic) == [1]
        assert archiver.archived[topic].records == 501
        assert pq.read_table(tmp_path).num_rows == 501


async def test_the_brokers_time_is_told_from_the_producers(kafka: KafkaSettings, tmp_path: Path) -> None:
    with fresh_topic(kafka, **{"message.timestamp.type": "LogAppendTime"}) as topic:
        produce(kafka, topic, [b"1", b"2"])
        await archive(kafka, topic, tmp_path)
    assert pq.read_table(tmp_path)["timestamp_type"].to_pylist() == ["LogAppendTime"] * 2


async def test_a_second_run_adds_what_is_new_and_a_third_nothing(kafka: KafkaSettings, tmp_path: Path) -> None:
    with fresh_topic(kafka) as topic:
        produce(kafka, topic, [b"x"] * 100)
        await archive(kafka, topic, tmp_path)
        produce(kafka, topic, [b"y"] * 50)
        assert (await archive(kafka, topic, tmp_path)).archived[topic].records == 50
        assert (await archive(kafka, topic, tmp_path)).archived[topic].files == 0
    assert [(f.first, f.next) for f in archived_files(tmp_path, topic, 0)] == [(0, 100), (100, 150)]
    assert offsets(tmp_path, topic) == list(range(150))


async def test_records_deleted_unarchived_stop_it_until_the_gap_is_accepted(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with fresh_topic(kafka) as topic:
        produce(kafka, topic, [b"x"] * 10)
        await archive(kafka, topic, tmp_path)
        produce(kafka, topic, [b"y"] * 10)
        delete_before(kafka, topic, 14)
        with pytest.raises(ArchiveError, match=r"up to 9, .* has 14 to 19 now: 4 offsets were deleted") as stopped:
            await archive(kafka, topic, tmp_path)
        assert f"--from-available {topic}:0@10" in stopped.value.hint
        with pytest.raises(ArchiveError):
            await archive(kafka, topic, tmp_path, f"{topic}:0@9")
        archiver = await archive(kafka, topic, tmp_path, f"{topic}:0@10")
        assert (archiver.archived[topic].skipped, archiver.archived[topic].records) == (4, 6)
        with pytest.raises(ArchiveError, match="no offsets 10 to 13"):
            offsets(tmp_path, topic)
        assert offsets(tmp_path, topic, start=14) == list(range(14, 20))
        await archive(kafka, topic, tmp_path)


async def test_a_topic_that_was_made_anew_is_not_mixed_with_the_old_one(kafka: KafkaSettings, tmp_path: Path) -> None:
    with fresh_topic(kafka) as topic:
        produce(kafka, topic, [b"x"] * 10)
        await archive(kafka, topic, tmp_path)
    with fresh_topic(kafka) as other:
        produce(kafka, other, [b"x"] * 20)
        await archive(kafka, other, tmp_path)
        (tmp_path / f"topic={other}" / "partition=0").rename(tmp_path / "kept")
        (tmp_path / f"topic={topic}" / "partition=0").rename(tmp_path / f"topic={other}" / "partition=0")
        with pytest.raises(ArchiveError):
            await archive(kafka, other, tmp_path)


def unfinished(directory: Path) -> set[Path]:
    return set(directory.glob("*/*/.unfinished-*"))


@contextmanager
def following(kafka: KafkaSettings, topic: str, to: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command as a service; kill what is left of it."""
    command = [FLUVIAL, "archive", topic, "--to", to, "--follow", "--file-seconds", "1"]
    env = {"FLUVIAL_KAFKA__BROKERS": kafka.brokers, "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_following_killed_and_drained_leaves_every_record_once(kafka: KafkaSettings, tmp_path: Path) -> None:
    with fresh_topic(kafka, partitions=2) as topic:
        total, left = 0, set()
        for ending, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 0)):
            with following(kafka, topic, tmp_path) as process:
                for _ in range(2):
                    produce(kafka, topic, [b"x" * 100] * 200, partition=0)
                    produce(kafka, topic, [b"y" * 100] * 100, partition=1)
                    total += 200
                    await eventually(lambda: bool(archived_files(tmp_path, topic, 0)), 60)
                await eventually(lambda: bool(unfinished(tmp_path) - left), 60)  # noqa: B023
                left = unfinished(tmp_path)
                process.send_signal(ending)
                assert await asyncio.to_thread(process.wait, 30) == status
        await archive(kafka, topic, tmp_path)
        assert not unfinished(tmp_path)
    assert offsets(tmp_path, topic, 0) == list(range(total))
    assert offsets(tmp_path, topic, 1) == list(range(total // 2))
    values = np.concatenate([r.value.length for r in read_archive(tmp_path, topic, 1)])
    assert set(values.tolist()) == {100}
