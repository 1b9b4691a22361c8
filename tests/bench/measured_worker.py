"""Fluvial's worker with one pipeline, measured: ``measured_worker.py SETTINGS TOPIC TABLE PARTITIONS``.

It says how many records have been handled and everything that came of them acknowledged by Kafka.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping

import load
from confluent_kafka.admin import AdminClient
from faust.types import TP

from fluvial.schemas.registry import Registry
from fluvial.services.processors import build_worker
from fluvial.settings import Settings
from fluvial.stream_apps.worker import Worker
from fluvial.transport.connection import librdkafka_config

EVERY_SECONDS = 0.01


async def main(settings: Settings, topic: str, table: str, partitions: int) -> None:
    """Run the worker until it is killed."""
    worker = build_worker(settings, load.catalog_of(topic, table), Registry(settings.registry))
    _hold_until_assigned(worker, partitions)
    ends = _ends(settings, topic)
    running = asyncio.create_task(worker.app.run())
    said = 0
    while not running.done():
        await asyncio.sleep(EVERY_SECONDS)
        done = _acknowledged(worker)
        if len(done) == partitions and (handled := sum(done.values())) > said:
            print("at", handled, flush=True)
            said = handled
            if all(position >= ends[tp] for tp, position in done.items()):
                break
    await running


def _acknowledged(worker: Worker) -> dict[TP, int]:
    """Return up to where all records were handled, and everything that came of them acknowledged by Kafka."""
    prefixes = getattr(worker.app.consumer, "prefixes", {})
    return {tp: prefix.position for tp, prefix in list(prefixes.items())}


def _hold_until_assigned(worker: Worker, partitions: int) -> None:
    """Begin to read only when this process has its share of the partitions, and not all of them."""
    find = worker.app.positions
    assert find is not None

    async def positions(tps: frozenset[TP]) -> Mapping[TP, int]:
        while len(assigned := worker.app.consumer.assignment()) != partitions:  # noqa: ASYNC110 — Faust tells nobody
            await asyncio.sleep(EVERY_SECONDS)
        found: Mapping[TP, int] = await find(frozenset(tps & assigned))
        return found

    worker.app.positions = positions


def _ends(settings: Settings, topic: str) -> dict[TP, int]:
    admin = AdminClient(librdkafka_config(settings.kafka))
    partitions = list(admin.list_topics(topic, timeout=load.TIMEOUT_SECONDS).topics[topic].partitions)
    return {TP(topic, p): end for p, end in load.end_offsets(admin, topic, partitions).items()}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(Settings.model_validate_json(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
