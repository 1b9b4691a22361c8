"""Checkpoints: any state comes back bit for bit, damage is found, little is written twice, and nothing is left behind."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fluvial.errors import CheckpointError
from fluvial.schemas.declarations import Hopping, Pipeline, Session, Tumbling
from fluvial.settings import KafkaSettings
from fluvial.stream_apps import layout as k
from fluvial.stream_apps import session_kernel as sk
from fluvial.stream_apps.aggregation import Aggregation
from fluvial.stream_apps.checkpoint_format import (
    Manifest,
    StoredArray,
    StoredBlock,
    pack_block,
    pack_manifest,
    unpack_block,
    unpack_manifest,
)
from fluvial.stream_apps.checkpoint_reader import StoredRecord
from fluvial.stream_apps.checkpoints import CheckpointStore, Place, Written
from fluvial.stream_apps.snapshots import State, arrays_of
from fluvial.transport.publisher import OutRecord
from support.engine import batch_of, rows_of
from support.logs import FIELDS, batchings, cut, logs, pipelines

HERE = Place("iot.readings", 0, 0)


class Topic:
    """A compacted topic of one partition, and what publishes to it."""

    def __init__(self) -> None:
        self.records: list[StoredRecord] = []
        self.fails_at = -1

    async def publish_records(self, topic: str, records: Sequence[OutRecord]) -> Any:
        for r in records:
            if len(self.records) == self.fails_at:
                raise ConnectionError("the broker is gone")
            assert r.key is not None
            self.records.append(StoredRecord(0, len(self.records), r.key, r.value))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def read(self, spans: Mapping[int, tuple[int, int | None]]) -> Iterator[StoredRecord]:
        first, last = spans[0] if spans else (0, -1)
        for r in self.compacted():
            if r.offset >= first and (last is None or r.offset <= last):
                yield r

    def compacted(self) -> list[StoredRecord]:
        newest = {r.key: r.offset for r in self.records}
        return [r for r in self.records if newest[r.key] == r.offset and r.value is not None]

    def change(self, key: bytes, value: bytes | None) -> None:
        self.records = [r._replace(value=value) if r.key == key else r for r in self.records]

    def store(self) -> CheckpointStore:
        return CheckpointStore(KafkaSettings(), "checkpoints", 1, self.read)

    def write(self, store: CheckpointStore, offset: int, state: State) -> Written:
        return asyncio.run(store.write(self, HERE, offset, snapshot(state)))  # type: ignore[arg-type]

    def chunks(self) -> list[bytes]:
        return [r.key for r in self.compacted() if b"manifest" not in r.key]

    def manifests(self) -> list[bytes]:
        return [r.key for r in self.compacted() if b"manifest" in r.key]


def snapshot(state: State) -> dict[str, Any]:
    part = {"fingerprint": "abc", "next_offset": 1, "arrays": state}
    return {"topic": HERE.topic, "records": 7, "ledger": {"p": {"records": 7}}, "components": {"p": part}}


def read_back(topic: Topic) -> tuple[Any, dict[str, Any]] | None:
    found = topic.store().load([HERE])
    if not found:
        return None
    part = found[HERE]["components"]["p"]
    assert part["fingerprint"] == "abc"
    return found[HERE], part["arrays"]


def table(rows: int, salt: int = 0) -> State:
    return {"t": np.arange(rows * 16, dtype=np.int64).reshape(rows, 16) * 7919 + salt, "v": np.full(3, salt / 7)}


def same(a: State, b: Mapping[str, Any]) -> bool:
    return different(a, b) == []


def different(a: State, b: Mapping[str, Any]) -> list[str]:
    """Return the names of the arrays that are not the same bit for bit."""
    one, other = ({n: (v.shape, v.dtype, v.tobytes()) for n, v in x.items()} for x in (arrays_of(a), b))
    return [n for n in one.keys() | other.keys() if one.get(n) != other.get(n)]


def without_free_places(a: Aggregation) -> State:
    """Return a copy of the state in which places that are free, which hold anything, hold nothing."""
    state = {name: array.copy() for name, array in arrays_of(a.state()).items()}
    for taken, column, others in (("wi", k.W_KEY, ["wf"]), ("si", sk.S_KEY, []), ("ei", sk.E_OFFSET, ["ef"])):
        if f"windows.{taken}" in state:
            free = state[f"windows.{taken}"][:, column] < 0
            for name in (taken, *others):
                state[f"windows.{name}"][free] = 0
    if "windows.si" in state:
        state["windows.si"][:, sk.S_GEN] = 0  # tells a session from an earlier one at its place, no more
    return dict(state)


WINDOWS = st.one_of(
    st.builds(Tumbling, st.sampled_from([1, 7, 10])),
    st.builds(lambda hop, n: Hopping(hop * n, hop), st.sampled_from([1, 5]), st.integers(2, 4)),
    st.builds(Session, st.sampled_from([1, 4, 10])),
)


def as_text(made: dict[str, Any]) -> list[str]:
    """Return rows so that a NaN is equal to itself."""
    return sorted(repr(row) for row in rows_of(made))


def fresh(pipeline: Pipeline, upstream_partitions: int) -> Aggregation:
    return Aggregation(pipeline, partition=0, upstream_partitions=upstream_partitions)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate])
@given(st.data())
def test_a_state_that_went_through_chunks_goes_on_as_the_uninterrupted_one_bit_for_bit(data: st.DataObject) -> None:
    log = data.draw(logs(pipelines(WINDOWS)))
    good = [r for r in log.records if r.kind in ("event", "tick", "keyed_tick") and (r.kind != "event" or r.event)]
    straight = fresh(log.pipeline, log.upstream_partitions)
    restarted, topic = fresh(log.pipeline, log.upstream_partitions), Topic()
    store = topic.store()
    for records in cut(good, data.draw(batchings(len(good)))):
        batch = batch_of(records, FIELDS)
        made, again = straight.process(batch)[0], restarted.process(batch)[0]
        assert as_text(made) == as_text(again)
        what = data.draw(st.sampled_from(["nothing", "checkpoint", "restart", "rebalance"]))
        if not records:  # at the same offset as the one before
            continue
        if what != "nothing":
            topic.write(store, restarted.last_offset + 1, restarted.state())
        if what == "restart":
            store = topic.store()
            found = store.load([HERE])[HERE]["components"]["p"]["arrays"]
            restarted = fresh(log.pipeline, log.upstream_partitions)
            restarted.restore(found)
        if what == "rebalance":
            store.renew(HERE)
        # Which of several sessions that end at once is closed first, and so which place is free next, is not kept.
        if log.pipeline.time == "key" or not isinstance(log.pipeline.window, Session):
            assert different(without_free_places(straight), without_free_places(restarted)) == []


@given(st.integers(0, 3000), st.sampled_from([np.int64, np.float64, np.uint8]), st.integers(1, 5), st.booleans())
def test_a_block_comes_back_as_it_was(rows: int, dtype: type[Any], columns: int, shuffled: bool) -> None:
    block = (np.arange(rows * columns).reshape(rows, columns) * 7919 % 251).astype(dtype)
    out = np.empty_like(block)
    unpack_block(pack_block(block, shuffled), out, shuffled)
    assert out.tobytes() == block.tobytes()


MANIFEST = Manifest(
    42, {"ledger": {"p": {"records": 7}}, "n": 1}, {"p": {"t": StoredArray("<i8", (5, 2), True, (StoredBlock(5, 0, 2, "ab"),))}}
)  # fmt: skip


@given(st.data())
def test_a_damaged_manifest_is_refused_and_never_crashes(data: st.DataObject) -> None:
    packed = bytearray(pack_manifest(MANIFEST))
    assert unpack_manifest(bytes(packed)) == MANIFEST
    at = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del packed[at:]
    with pytest.raises(CheckpointError):
        unpack_manifest(bytes(packed))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_whatever_is_damaged_the_checkpoint_before_is_used(data: st.DataObject) -> None:
    topic = Topic()
    store = topic.store()
    older, newer = table(3000, 1), table(3000, 2)
    topic.write(store, 10, older)
    kept = set(topic.chunks())
    topic.write(store, 20, newer)
    key = data.draw(st.sampled_from([*sorted(set(topic.chunks()) - kept), topic.manifests()[1]]))
    value = bytearray(next(r.value for r in topic.compacted() if r.key == key) or b"")
    how = data.draw(st.sampled_from(["missing", "truncated", "flipped", "foreign"]))
    at = data.draw(st.integers(0, len(value) - 1))
    if how == "flipped":
        value[at] ^= 1 << data.draw(st.integers(0, 7))
    changed = {"missing": None, "truncated": bytes(value[:at]), "flipped": bytes(value), "foreign": b'{"format": 1}'}
    topic.change(key, changed[how])
    found = read_back(topic)
    assert found is not None
    assert same(older, found[1])


def test_when_both_are_damaged_there_is_none_and_the_log_is_read() -> None:
    topic = Topic()
    store = topic.store()
    for offset in (10, 20):
        topic.write(store, offset, table(10, offset))
    for key in topic.manifests():
        topic.change(key, b"?")
    assert read_back(topic) is None


def test_an_unchanged_state_writes_a_manifest_and_nothing_else() -> None:
    topic = Topic()
    store = topic.store()
    first = topic.write(store, 10, table(20_000))
    before = len(topic.records)
    second = topic.write(store, 20, table(20_000))
    assert first.changed == first.blocks > 15
    assert second.changed == 0
    assert len(topic.records) == before + 1


def test_only_the_block_that_changed_is_written_again() -> None:
    topic = Topic()
    store = topic.store()
    state = arrays_of(table(20_000))
    topic.write(store, 10, dict(state))
    state["t"][12_345, 3] += 1
    assert topic.write(store, 20, dict(state)).changed == 1
    found = read_back(topic)
    assert found is not None
    assert same(dict(state), found[1])


def test_many_checkpoints_leave_no_more_than_two_of_them_whoever_wrote_them() -> None:
    topic = Topic()
    blocks = topic.write(topic.store(), 1, table(20_000)).blocks
    for life in range(5):
        store = topic.store()
        store.load([HERE])
        for turn in range(life + 1):
            topic.write(store, 10 * life + turn + 2, table(20_000, 100 * life + turn))
            assert len(topic.chunks()) <= 2 * blocks
            assert len(topic.manifests()) <= 2 + (turn == 0)


@pytest.mark.parametrize("fails_after", [0, 1, 5, 20, 21])
def test_a_checkpoint_that_breaks_off_leaves_the_one_before_and_its_remains_go_with_the_next(fails_after: int) -> None:
    topic = Topic()
    store = topic.store()
    blocks = topic.write(store, 10, table(20_000, 1)).blocks
    assert blocks == 21
    topic.fails_at = len(topic.records) + fails_after
    with pytest.raises(ConnectionError):
        topic.write(store, 20, table(20_000, 2))
    found = read_back(topic)
    assert found is not None
    assert same(table(20_000, 1), found[1])
    topic.fails_at = -1
    for salt in (3, 4):
        topic.write(store, 10 * salt, table(20_000, salt))
    assert len(topic.chunks()) == 2 * blocks
    assert len(topic.manifests()) == 2


def test_a_zombie_cannot_break_the_checkpoints_of_who_took_over() -> None:
    topic = Topic()
    zombie, heir = topic.store(), topic.store()
    for offset in (10, 20):
        topic.write(zombie, offset, table(9000, 1))
    heir.load([HERE])
    for offset in (30, 40, 50):
        topic.write(heir, offset, table(9000, offset))
        topic.write(zombie, offset - 15, table(9000, 1))
        found = read_back(topic)
        assert found is not None
        assert same(table(9000, offset), found[1])


def test_one_who_gets_a_place_back_relies_on_nothing_that_was_deleted_meanwhile() -> None:
    topic = Topic()
    first, second = topic.store(), topic.store()
    topic.write(first, 10, table(9000))
    second.load([HERE])
    for offset in (20, 30):
        topic.write(second, offset, table(9000))
    first.renew(HERE)
    topic.write(first, 40, table(9000))
    found = read_back(topic)
    assert found is not None
    assert topic.store().ledgers([HERE]) == {HERE: (40, {"p": {"records": 7}})}


def test_a_block_larger_than_a_record_is_stored_in_pieces() -> None:
    rng, topic = np.random.default_rng(1), Topic()
    big = {"b": rng.integers(0, 1 << 62, (1, 500_000))}
    topic.write(topic.store(), 10, dict(big))
    assert max(len(r.value or b"") for r in topic.records) < 1_000_000
    found = read_back(topic)
    assert found is not None
    assert same(dict(big), found[1])
