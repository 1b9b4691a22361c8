"""`batch_app`: a Faust app whose agents get whole fetched record batches, with every option set for exact recovery.

    app = batch_app(
        "fluvial-worker", settings.kafka,
        topics=[BatchTopic("iot.readings", partitions=4)],
        positions=engine.positions,     # where to read on, per partition: from the checkpoints
        on_revoked=engine.hand_over,    # partitions that leave: write their checkpoints, then drop their state
    )

    @app.agent(app.batch_topic("iot.readings"))
    async def readings(stream):
        async for batch in stream:                                # a FetchedBatch
            columns = await asyncio.to_thread(batch.columns)      # CRC, decompression, parsing
            ...                                                   # asking for the next batch acknowledges this one

Run it with ``faust -A …``, ``faust.Worker(app).execute_from_commandline()``, or ``await app.start()`` and
``await app.stop()`` in a loop of your own. An exception in an agent, a corrupt batch, an offset that no longer exists or a
partition that stands still end the worker: nothing unprocessed is acknowledged, the process ends with a non-zero status,
and the next start reads on from ``positions``. Stock per-event agents (``app.topic(…)``) run beside batch agents.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from faust.types import TP

from fluvial.settings import KafkaSettings

Positions = Callable[[frozenset[TP]], Awaitable[Mapping[TP, int]]]
Revoked = Callable[[frozenset[TP]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BatchTopic:
    """A topic whose agents get `FetchedBatch` objects; ``partitions`` is the count it must have (None: any)."""

    name: str
    partitions: int | None = None


def batch_app(
    group: str,
    kafka: KafkaSettings,
    *,
    topics: Sequence[BatchTopic],
    positions: Positions | None = None,
    on_revoked: Revoked | None = None,
    instance_id: str | None = None,
    web_port: int | None = None,
    stall_seconds: float = 120.0,
    drain_seconds: float = 30.0,
    fetch_bytes: int = 8 << 20,
    buffered_batches: int = 8,
) -> "BatchApp":
    """Return a Faust app of the consumer group ``group`` that reads ``topics`` in batches.

    ``positions`` is awaited after every assignment, before anything is fetched, with all assigned partitions of batch
    topics; it returns the offset to read next, per partition. A partition that it leaves out is read from its earliest
    available record. None stands for the group's committed offsets (earliest where there is none). It is also awaited
    when nothing changed for a partition since the last assignment (Kafka's eager protocol reassigns all): state that is
    still in memory is still valid, so returning its offset saves the reload.

    ``on_revoked`` is awaited with the partitions that may go to another worker, and at shutdown, when no agent is
    inside an unheld batch; what it acknowledges is still committed. It has ``drain_seconds``.

    ``instance_id`` makes the membership static (a restart within the session timeout keeps its partitions without a
    rebalance). ``web_port`` None means no web server. ``fetch_bytes`` is the most fetched per partition and request,
    ``buffered_batches`` the number of fetched batches that wait for an agent.

    The app has two more methods: ``app.batch_topic(name)`` gives the Faust topic for ``@app.agent``, and
    ``await app.fail_stop(error)`` ends the worker without acknowledging anything more.

    Raises:
        ProvisioningError: when the app starts: a topic does not exist or has another partition count.
        TransportError: ends the running app: an offset is out of range, a partition is stalled, a drain took too long.
    """
    raise NotImplementedError


class BatchApp(faust.App):  # type: ignore[misc]
    """See `batch_app`."""

    def batch_topic(self, name: str) -> Any:
        """Return the Faust topic of one of the app's batch topics, for ``@app.agent``."""
        raise NotImplementedError

    async def fail_stop(self, error: BaseException) -> None:
        """End the worker with ``error``: log it, commit nothing more, exit with a non-zero status."""
        raise NotImplementedError
