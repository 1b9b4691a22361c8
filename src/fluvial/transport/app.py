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

Run it with ``faust -A …``, ``faust.Worker(app).execute_from_commandline()``, or
``await app.run()`` in a loop of your own. An exception in an agent, a corrupt batch, an offset that no longer exists or
a partition that stands still end the worker: nothing unprocessed is acknowledged, the process ends with a non-zero
status, and the next start reads on from ``positions``. Stock per-event agents (``app.topic(…)``) run beside them.
"""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
from faust.types import TP
from yarl import URL

from fluvial.errors import TransportError
from fluvial.settings import KafkaSettings
from fluvial.transport.available import GapPolicy, Start
from fluvial.transport.connection import bootstrap_servers, librdkafka_config, ssl_context
from fluvial.transport.fetch import compile_kernels
from fluvial.transport.identity import verify_topics
from fluvial.transport.membership import AUTO, HeldName, names_folder
from fluvial.transport.stream import AckOnResume, BatchesTopic, BatchSchema, FailStopAgent, StrictEvent, StrictTopic
from fluvial.transport.watchdog import Watchdog

MAX_PARTITIONS = 1024

log = logging.getLogger(__name__)

Positions = Callable[[frozenset[TP]], Awaitable[Mapping[TP, int | Start]]]
Revoked = Callable[[frozenset[TP]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BatchTopic:
    """A topic whose agents get `FetchedBatch` objects; ``partitions`` is the count it must have (None: any)."""

    name: str
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How much is fetched at once, at most per partition and per request.

    The broker answers when ``min_bytes`` are there, or after ``wait_ms``: a tenth of a second's delay at low rates, for
    a quarter of the CPU time that answering every record at once would take.
    """

    partition_bytes: int
    request_bytes: int = 64 << 20
    min_bytes: int = 16 << 10
    wait_ms: int = 100


class BatchApp(faust.App):  # type: ignore[misc]
    """See `batch_app`."""

    # Set by `batch_app`; read by the transport.
    batch_topics: tuple[BatchTopic, ...] = ()
    batch_topic_names: frozenset[str] = frozenset()
    positions: Positions | None = None
    on_revoked: Revoked | None = None
    gaps: GapPolicy = GapPolicy()
    kafka: KafkaSettings = KafkaSettings()
    drain_seconds: float = 30.0
    fetch_options: FetchOptions = FetchOptions(2 << 20)
    buffered_batches: int = 8
    admin_config: Mapping[str, Any] = {}
    stall_seconds: float = 120.0
    failure: BaseException | None = None
    #: Whether an orderly stop leaves the group. A static member that does not keeps its partitions for the session.
    leaves_group: bool = True
    instance_id: str | None = None
    #: Kafka's ids of the topics that are read, once started: a topic that is created anew has another one.
    topic_ids: Mapping[str, str] = {}
    _name: HeldName | None = None
    _excuses: int = 0
    _stopping: asyncio.Future[None] | None = None

    def batch_topic(self, name: str) -> Any:
        """Return the Faust topic of one of the app's batch topics, for ``@app.agent``.

        Raises:
            TransportError: the app was not declared to read that topic in batches.
        """
        if name not in self.batch_topic_names:
            raise TransportError(f"{name} is not a batch topic of {self.conf.id}", hint="add it to batch_app(topics=…)")
        # While a partition's pause takes effect, one more batch of it may come.
        return BatchesTopic(self, topics=[name], schema=BatchSchema(), maxsize=self.buffered_batches + MAX_PARTITIONS)

    @contextlib.contextmanager
    def expected_wait(self, why: str) -> Iterator[None]:
        """Keep the watchdog quiet while an agent waits for something outside that is known to be away."""
        self.log.warning("Waiting: %s", why)
        self._excuses += 1
        try:
            yield
        finally:
            self._excuses -= 1

    @property
    def is_waiting(self) -> bool:
        """True inside any `expected_wait`."""
        return self._excuses > 0

    async def fail_stop(self, error: BaseException) -> None:
        """End the worker with ``error``: log it, commit nothing more, exit with a non-zero status."""
        if self._consumer is not None:
            self._consumer.frozen = True
        if self.failure is None:
            self.failure = error
            self.leaves_group = False  # who supervises the process starts it again
            self.log.critical("Stopping without acknowledging anything more: %s", error)
            await self.crash(error)

    async def run(self) -> None:
        """Start in the running event loop, wait until the app has stopped, and raise what it failed of, if anything."""
        try:
            await self.start()
            await self.wait_until_stopped()
        finally:
            await self.stop()
            if self._name is not None:
                self._name.release()
                self._name = None
        if self.crash_reason is not None:
            raise self.crash_reason

    async def stop(self) -> None:
        """Drain and stop; whoever calls, and however often, returns when it is done. Not to be awaited by an agent."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(super().stop())
        await asyncio.shield(self._stopping)

    async def on_started_init_extra_services(self) -> None:
        """Start the watchdog with the app's other services."""
        await super().on_started_init_extra_services()
        await self.add_runtime_dependency(Watchdog(self, self.stall_seconds, loop=self.loop, beacon=self.beacon))

    async def start(self) -> None:
        """Verify the topics, then start.

        Raises:
            ProvisioningError: a topic does not exist, or has another partition count than declared.
        """
        agents = {name for agent in self.agents.values() for name in agent.get_topic_names()}
        expected = dict.fromkeys(agents) | {t.name: t.partitions for t in self.batch_topics}
        self.topic_ids = await asyncio.to_thread(verify_topics, self.admin_config, expected)
        await asyncio.to_thread(compile_kernels)
        if self.instance_id == AUTO:
            self._name = await asyncio.to_thread(HeldName, names_folder(self.conf.id))
        self.conf.consumer_group_instance_id = self._name.name if self._name else self.instance_id or None
        if not self.should_stop:  # else its parts would be made, and nobody would stop them any more
            await super().start()


def batch_app(
    group: str,
    kafka: KafkaSettings,
    *,
    topics: Sequence[BatchTopic],
    positions: Positions | None = None,
    on_revoked: Revoked | None = None,
    gaps: GapPolicy | None = None,
    instance_id: str | None = None,
    web_port: int | None = None,
    stall_seconds: float = 120.0,
    drain_seconds: float = 30.0,
    fetch_bytes: int = 2 << 20,
    buffered_batches: int = 8,
) -> BatchApp:
    """Return a Faust app of the consumer group ``group`` that reads ``topics`` in batches.

    ``positions`` is awaited after every assignment, before anything is fetched, with all assigned partitions of batch
    topics; it returns the offset to read next, per partition. A partition that it leaves out is read from its earliest
    available record. None stands for the group's committed offsets (earliest where there is none). It is also awaited
    when nothing changed for a partition since the last assignment (Kafka's eager protocol reassigns all): state that is
    still in memory is still valid, so returning its offset saves the reload. A `Start` tells where to read from what
    must still be there: state of several ages reads from the oldest, and parts that begin with the log need none of it.

    ``gaps`` says what happens where the log does not have an offset that is to be read. By itself the app stops.

    ``on_revoked`` is awaited with the partitions that may go to another worker, and at shutdown, when no agent is
    inside an unheld batch; what it acknowledges is still committed. It has ``drain_seconds``.

    ``instance_id`` makes the membership static: a restart within ``kafka.session_seconds`` keeps its partitions without a
    rebalance. "auto" takes a name that is free on this machine (see `fluvial.transport.membership`). A static member that
    is stopped leaves the group, unless ``app.leaves_group`` was set to false because it will be started again; one that
    failed stays. ``web_port`` None means no web server. ``fetch_bytes`` is the most fetched per partition and request,
    ``buffered_batches`` the number of fetched batches that wait for an agent.

    A partition with records waiting that does not move for ``stall_seconds`` stops the worker. What an agent waits for
    on purpose (a database that is down) goes into ``with app.expected_wait("why"):``.

    The app has more methods: ``app.batch_topic(name)`` gives the Faust topic for ``@app.agent``, ``await
    app.fail_stop(error)`` ends the worker without acknowledging anything more, and ``await app.run()`` starts it in the
    running event loop and returns, or raises what it failed of, when it has stopped.

    Raises:
        ProvisioningError: when the app starts: a topic does not exist or has another partition count.
        OffsetsGoneError: ends the running app: the log does not have what is to be read next.
        TransportError: ends the running app: a partition is stalled, a drain took too long.
    """
    servers = bootstrap_servers(kafka)
    app = BatchApp(
        group,
        broker_consumer=[URL(f"kafka+batch://{server}") for server in servers],
        broker_producer=[URL(f"kafka://{server}") for server in servers],
        broker_credentials=_credentials(kafka),
        broker_client_id=group,
        consumer_auto_offset_reset="earliest",
        processing_guarantee="at_least_once",
        store="memory://",
        # Faust makes this folder even where no table is kept in it.
        datadir=str(Path(tempfile.gettempdir()) / f"fluvial-{os.getuid()}-{group}"),
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        reply_create_topic=False,
        web_enabled=web_port is not None,
        web_port=web_port or 6066,
        worker_redirect_stdouts=False,
        # The state of a partition may take a while to load; Faust gives the positions as long as a request.
        broker_request_timeout=300.0,
        broker_session_timeout=kafka.session_seconds,
        broker_heartbeat_interval=3.0,
        broker_rebalance_timeout=max(60.0, 3 * drain_seconds),
        # A paused app (its database is away) fetches nothing and must stay in the group; the watchdog sees to stalls.
        broker_max_poll_interval=7 * 86_400.0,
        broker_commit_every=10_000,
        broker_commit_interval=2.8,
        producer_partitioner=None,
        Agent=FailStopAgent,
        Event=StrictEvent,
        Stream=AckOnResume,
        Topic=StrictTopic,
    )
    app.batch_topics = tuple(topics)
    app.batch_topic_names = frozenset(t.name for t in topics)
    app.positions = positions
    app.on_revoked = on_revoked
    app.instance_id = instance_id
    app.gaps = gaps or GapPolicy()
    app.kafka = kafka
    app.stall_seconds = stall_seconds
    app.drain_seconds = drain_seconds
    app.fetch_options = FetchOptions(fetch_bytes)
    app.buffered_batches = buffered_batches
    app.admin_config = librdkafka_config(kafka)
    return app


def _credentials(kafka: KafkaSettings) -> Any:
    context = ssl_context(kafka)
    if not kafka.security_protocol.startswith("SASL"):
        return None if context is None else faust.SSLCredentials(context)
    config = librdkafka_config(kafka)
    return faust.SASLCredentials(
        username=config["sasl.username"],
        password=config["sasl.password"],
        mechanism=config["sasl.mechanism"],
        ssl_context=context,
    )
