"""Where partitions are read on: what the app wants, against what the log has."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from faust.types import TP

from fluvial.settings import KafkaSettings
from fluvial.transport.available import Gap, GapPolicy, OffsetsGoneError, Start
from fluvial.transport.reading import LogReader

# What looking into a log takes at most, where that only completes a message.
LOOK_SECONDS = 10.0

log = logging.getLogger(__name__)


async def where_to_read(
    wanted: Mapping[TP, int | Start | None],
    bounds: Mapping[TP, tuple[int, int]],
    policy: GapPolicy,
    kafka: KafkaSettings,
) -> dict[TP, int]:
    """Return where to read each partition; None stands for its first record. ``bounds`` are its first offset and its end.

    Raises:
        OffsetsGoneError: what is needed is gone, and nobody has chosen to go on without it.
    """
    positions: dict[TP, int] = {}
    gone: list[Gap] = []
    for tp, at in wanted.items():
        first, end = bounds[tp]
        start = Start(first, first) if at is None else at if isinstance(at, Start) else Start(at, at)
        positions[tp] = max(start.offset, first)
        gap = Gap(tp.topic, tp.partition, start.required, first, end)
        if first <= start.required <= end:
            policy.accepted.settle(tp.topic, tp.partition)
        elif policy.accepts(gap):
            log.error("Going on at offset %d, as chosen: %s", first, gap)
            positions[tp] = first
            if policy.on_skipped is not None:
                await policy.on_skipped(gap)
        elif gap.lost:
            gone.append(gap)
        # Else a fetch will tell: the broker's answer to it is surer than an end, which may lag after a failover.
    if gone:
        raise await told(gone, policy, kafka)
    return positions


async def told(gaps: Sequence[Gap], policy: GapPolicy, kafka: KafkaSettings) -> OffsetsGoneError:
    """Return the error of these gaps, completed by when what is left begins."""
    return policy.error([replace(g, first_ms=await _first_ms(g, kafka)) if g.lost else g for g in gaps])


async def _first_ms(gap: Gap, kafka: KafkaSettings) -> int | None:
    """Return the timestamp of the first record left; None where that is not soon known."""
    place = (gap.topic, gap.partition)
    try:
        async with asyncio.timeout(LOOK_SECONDS), LogReader(kafka, {gap.topic}) as reader:
            reader.start({place: gap.first})
            while True:
                for batch in await reader.fetched(1.0):
                    columns = await asyncio.to_thread(batch.columns)
                    if len(columns):
                        return int(columns.timestamp[0])
                    if batch.next_offset >= gap.end:
                        return None
    except Exception as e:  # noqa: BLE001 — only completes another error's text
        log.warning("cannot read the first record left of %s[%d]: %r", *place, e)
        return None
