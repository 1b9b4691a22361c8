"""Fluvial's worker with one pipeline, measured: ``measured_worker.py SETTINGS TOPIC TABLE PARTITIONS``.

It says how many records its partitions have been read up to, the last time when everything that came of them is
acknowledged by Kafka.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping

import load
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
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
    said = -1
    while not running.done():
        await asyncio.sleep(EVERY_SECONDS)
        stages = worker.stages
        if len(stages) != partitions:
            continue
        handled = sum(s.next_offset for s in stages.values())
        if all(s.next_offset >= ends[tp] for tp, s in stages.items()):
            # A checkpoint waits for the stages' output to be acknowledged.
            await worker.checkpoint()
            print("at", handled, flush=True)
            break
        if handled > said:
            print("at", handled, flush=True)
            said = handled
    await running


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
    found = admin.list_topics(topic, timeout=load.TIMEOUT_SECONDS).topics[topic].partitions
    asked = {TopicPartition(topic, p): OffsetSpec.latest() for p in found}
    return {TP(tp.topic, tp.partition): int(f.result().offset) for tp, f in admin.list_offsets(asked).items()}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(Settings.model_validate_json(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
