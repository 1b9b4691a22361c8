"""The rows of the fault matrix that need one broker and one node: workers, sinks, checkpoints, poison, repeats."""

import itertools
import random
import signal
from collections.abc import Iterator

from confluent_kafka import Producer

from fluvial.transport.connection import librdkafka_config
from support.faults.feeder import Feeder
from support.faults.invariants import read_topic
from support.faults.load import Chunk, Shape
from support.faults.trial import SESSION_SECONDS, Scenario, Trial

CHECKPOINT_FAILPOINTS = (
    "checkpoint.amid-chunks",
    "checkpoint.between-chunks-and-manifest",
    "checkpoint.between-manifest-and-clean-up",
)
WORKER_FAILPOINTS = (
    "worker.between-fold-and-publish",
    "worker.between-publish-and-ack",
    "publisher.before-delivery-report",
)


def kill_workers(t: Trial) -> None:
    """Kill workers at random moments, sometimes all at once."""
    for _ in range(t.rng.randint(2, 4)):
        t.wait(0.2, 3.0)
        for name in t.workers if t.rng.random() < 0.25 else [t.rng.choice(t.workers)]:
            t.kill(name)


def die_where_it_matters(t: Trial) -> None:
    """Let a worker die between folding, publishing and acknowledging."""
    _die_at(t, t.workers, WORKER_FAILPOINTS)


def kill_sink_before_commit(t: Trial) -> None:
    """Let the sink die when Cassandra has the rows and Kafka not yet the offset; now and then at any moment."""
    _die_at(t, t.sinks, ("sink.between-write-and-commit",))
    if t.rng.random() < 0.5:
        t.wait(0.2, 2.0)
        t.kill(t.rng.choice(t.sinks))


def die_in_a_checkpoint(t: Trial) -> None:
    """Let a worker die in the middle of a checkpoint."""
    _die_at(t, t.workers, CHECKPOINT_FAILPOINTS)


def pause_past_the_session(t: Trial) -> None:
    """Let a worker stand still until its partitions belong to somebody else, and wake up as a zombie."""
    t.wait(0.5, 3.0)
    name = t.rng.choice(t.workers)
    t.pause(name)
    t.expect_end(name)  # a fenced static member may end; it is started again then
    t.wait(SESSION_SECONDS + 2.0, SESSION_SECONDS + 8.0)
    t.resume(name)
    t.wait(4.0, 6.0)
    if not t.processes.is_running(name):
        t.start(name)
    else:
        t.processes.members[name].may_end = False


def rolling_restart(t: Trial) -> None:
    """Restart every process in order, one after the other, under load."""
    order = [*t.workers, *t.sinks]
    t.rng.shuffle(order)
    for name in order:
        t.wait(0.2, 1.5)
        t.restart(name)


def rebalance_storm(t: Trial) -> None:
    """Let workers join and leave all the time."""
    for i in range(t.rng.randint(2, 4)):
        name = f"guest-{i}"
        t.add_worker(name)
        t.wait(4.0, 6.0)
        if t.rng.random() < 0.3:
            t.expect_end(name)
            t.processes.send(name, signal.SIGKILL)
            t.note(f"kill {name}")
        else:
            t.leave(name)


def freeze_cassandra(t: Trial) -> None:
    """Let the node stand still as in a long collection of garbage: answers come late, writes are retried."""
    assert t.cluster is not None
    t.wait(0.5, 2.0)
    t.note("pause cassandra-1")
    t.cluster.pause("cassandra-1")
    try:
        t.wait(15.0, 22.0)
    finally:
        t.note("resume cassandra-1")
        t.cluster.resume("cassandra-1")
    if t.rng.random() < 0.5:
        t.wait(0.0, 1.0)
        t.kill(t.rng.choice(t.sinks))


def damage_checkpoints(t: Trial) -> None:
    """Flip bits in, cut off, or empty the newest checkpoints, kill the workers, and see them read on from elsewhere."""
    for _ in range(t.rng.randint(1, 2)):
        t.wait(1.5, 3.0)
        for name in t.workers:
            t.kill(name)
        _damage(t, f"{t.settings.worker.group}.checkpoints")
    t.wait(1.0, 2.0)
    t.kill(t.rng.choice(t.workers))


def swallow_poison(t: Trial) -> None:
    """A quarter of everything is poison; and a worker dies of something else meanwhile."""
    t.wait(1.0, 4.0)
    t.kill(t.rng.choice(t.workers))


def nothing_but_poison(t: Trial) -> None:
    """A bad deploy: from some moment on all is poison. The workers stop; when told that it is meant so, they read on."""
    for name in t.workers:
        t.expect_end(name)
    stopped = t.until(lambda: not any(t.processes.is_running(n) for n in t.workers), 60)
    if not stopped:
        t.violated("I6: a worker goes on although everything is bad")
    for name in t.workers:
        words = t.processes.last_words(name)
        if "bad" not in words:
            t.violated(f"I6: {name} does not say why it stopped: {words}")
        t.start(name, FLUVIAL_WORKER__DEAD_LETTER_RATIO="1", FLUVIAL_WORKER__DEAD_LETTER_RUN="1000000000")


def publish_again(t: Trial) -> None:
    """A second gateway sends all the same, a third only a part and dies; a worker dies too."""
    others = [Feeder(t.settings.kafka, t.feeder.chunks), Feeder(t.settings.kafka, list(_some(t.rng, t.feeder.chunks)))]
    for other in others:
        t.wait(0.2, 1.0)
        t.note("another producer")
        other.go_on.set()
        other.start()
    t.wait(0.5, 3.0)
    t.kill(t.rng.choice(t.workers))
    for other in others:
        if not t.until(lambda o=other: not o.is_alive(), 60):
            t.violated("I1: a producer does not come to its end")
        if other.error is not None:
            t.violated(f"I1: publishing failed: {other.error!r}")


def registry_down(t: Trial) -> None:
    """Take the registry away for a while; what is known already goes on, what is not waits."""
    assert t.cluster is not None
    t.wait(0.2, 1.0)
    t.note("pause registry")
    t.cluster.pause("registry")
    try:
        t.wait(4.0, 12.0)
    finally:
        t.note("resume registry")
        t.cluster.resume("registry")


def disturb_the_network(t: Trial) -> None:
    """Cut, delay, reset and half-close what goes to Kafka and to Cassandra, one after the other and both at once."""
    for _ in range(t.rng.randint(3, 5)):
        t.wait(0.2, 2.0)
        hit = [t.rng.choice(sorted(t.proxies))] if t.rng.random() < 0.7 else sorted(t.proxies)
        what = t.rng.choice(("cut", "delay", "reset", "half_close", "refuse"))
        t.note(f"{what} {' '.join(hit)}")
        for name in hit:
            proxy = t.proxies[name]
            proxy.delay(0.2) if what == "delay" else getattr(proxy, what)()
        t.wait(0.5, 5.0)
        for name in hit:
            t.proxies[name].mend()


ROWS: dict[str, Scenario] = {
    "1": Scenario(1, "SIGKILL a worker at random moments", kill_workers),
    "1b": Scenario(1, "SIGKILL a worker between folding, publishing and acknowledging", die_where_it_matters),
    "2": Scenario(2, "SIGKILL between Cassandra's acknowledgement and the offset commit", kill_sink_before_commit),
    "3": Scenario(3, "SIGKILL in the middle of a checkpoint", die_in_a_checkpoint),
    "4": Scenario(4, "SIGSTOP a worker past its session, then SIGCONT", pause_past_the_session, Shape(seconds=20.0)),
    "5": Scenario(5, "rolling restart with SIGTERM under load", rolling_restart, Shape(seconds=15.0)),
    "6": Scenario(6, "rebalance storm", rebalance_storm, Shape(seconds=20.0)),
    "14": Scenario(14, "Cassandra stands still for 20 s", freeze_cassandra, recovery_seconds=60.0),
    "15": Scenario(15, "cuts, delays and resets", disturb_the_network, Shape(seconds=15.0), posts=0.2, proxied=True),
    "18": Scenario(18, "damaged checkpoints", damage_checkpoints),
    "19": Scenario(19, "a quarter is poison", swallow_poison, Shape(poison=0.25)),
    "20": Scenario(
        20, "all is poison", nothing_but_poison, Shape(good=0.4, ticks=0.0), posts=0.0,
        environment={"FLUVIAL_WORKER__DEAD_LETTER_RUN": "200"},
    ),
    "21": Scenario(21, "everything is sent three times, by several producers", publish_again, Shape(events=3000, times_sent=3)),
    "23": Scenario(23, "the registry is away", registry_down),
}  # fmt: skip
# These harm the servers, or need a proxied listener.
NEED_A_CLUSTER = frozenset({"14", "15", "23"})


def _die_at(t: Trial, names: list[str], failpoints: tuple[str, ...]) -> None:
    for _ in range(t.rng.randint(1, 2)):
        name = t.rng.choice(names)
        t.restart(name, f"{t.rng.choice(failpoints)}=kill@{t.rng.randint(1, 4)}")
        t.dies(name, 15.0)


def _damage(t: Trial, topic: str) -> None:
    newest = {m.key: m for m in read_topic(t.settings.kafka, topic) if m.key}
    records = [m for m in newest.values() if m.value]
    if not records:
        return
    producer = Producer(librdkafka_config(t.settings.kafka))
    for m in t.rng.sample(records, min(len(records), t.rng.randint(1, 6))):
        assert m.value is not None
        producer.produce(topic, _damaged(t.rng, m.value), m.key, partition=m.partition)
        t.note(f"damage {m.key!r}")
    assert producer.flush(30) == 0


def _damaged(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(len(value))
    return rng.choice((value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :], value[:at], b""))


def _some(rng: random.Random, chunks: list[Chunk]) -> Iterator[Chunk]:
    yield from itertools.islice(chunks, rng.randrange(len(chunks)))
