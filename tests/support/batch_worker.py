"""A worker process of the transport's tests: ``python batch_worker.py BROKERS TOPIC GROUP FILE MODE``.

Appends ``first_offset next_offset`` of every batch it has finished to FILE. MODE ``work`` takes 0.2 s per batch,
``fail`` raises on the second batch.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faust

from fluvial.settings import KafkaSettings
from fluvial.transport.app import BatchTopic, batch_app


def main(brokers: str, topic: str, group: str, file: str, mode: str) -> None:
    """Run the worker until a signal or a failure ends it."""
    kafka = KafkaSettings(brokers=brokers)
    app = batch_app(group, kafka, topics=[BatchTopic(topic)], instance_id="auto", fetch_bytes=5_000, buffered_batches=2)
    app.conf.broker_session_timeout = 6.0
    app.conf.broker_heartbeat_interval = 1.0
    app.conf.broker_commit_interval = 3600.0  # only the drain commits
    taken = 0

    @app.agent(app.batch_topic(topic))
    async def work(stream):
        nonlocal taken
        async for batch in stream:
            taken += 1
            if mode == "fail" and taken == 2:
                raise ValueError("a bad day")
            await asyncio.sleep(0.2)
            await asyncio.to_thread(batch.columns)
            note(Path(file), f"{batch.first_offset} {batch.next_offset}\n")

    faust.Worker(app, loglevel="INFO").execute_from_commandline()


@contextmanager
def worker(kafka: KafkaSettings, name: str, group: str, file: Path, mode: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker process, whose output goes to FILE.log; kill it when the block is left."""
    command = [sys.executable, __file__, kafka.brokers, name, group, str(file), mode]
    with Path(f"{file}.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


async def exit_status(process: subprocess.Popen[bytes]) -> int:
    """Wait until the process has ended by itself."""
    return await asyncio.to_thread(process.wait, 60)


def log_of(file: Path) -> str:
    """Return what workers logged."""
    return Path(f"{file}.log").read_text()


def note(file: Path, text: str) -> None:
    """Append to the file."""
    with file.open("a") as out:
        out.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
