"""The compiled engine against the oracle, bit for bit, for any log and any batching, with and without restarts."""

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fluvial.oracle.oracle import run
from fluvial.schemas.declarations import Hopping, Pipeline, Session, Tumbling
from support.engine import run_batches
from support.logs import FIELDS, batchings, cut, logs, pipelines

WINDOWS = {
    "tumbling": st.builds(Tumbling, st.sampled_from([1, 7, 10])),
    "hopping": st.builds(lambda hop, n: Hopping(hop * n, hop), st.sampled_from([1, 5]), st.integers(2, 4)),
    "session": st.builds(Session, st.sampled_from([1, 4, 10])),
}


@pytest.mark.parametrize("window", sorted(WINDOWS))
@pytest.mark.timeout(600)
def test_engine_writes_the_oracle_s_rows_bit_for_bit_whatever_the_batches(window: str) -> None:
    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        log = data.draw(logs(pipelines(WINDOWS[window])))
        pipeline, exhausted = log.pipeline, data.draw(st.booleans())
        expected = run(pipeline, log.records, upstream_partitions=log.upstream_partitions, exhausted=exhausted)
        dead = {d.offset for d in expected.dead}
        good = [r for r in log.records if r.offset not in dead]
        assume(not exhausted or bool(good and good[-1] is log.records[-1]))
        batches = cut(good, data.draw(batchings(len(good))))
        rows, late, counts = run_batches(
            pipeline, batches, FIELDS, upstream_partitions=log.upstream_partitions,
            restart=data.draw(st.booleans()), exhausted=exhausted,
        )  # fmt: skip
        ledger = expected.ledger
        assert sorted(late) == sorted((x.offset, x.late_by_ms) for x in expected.late)
        assert counts["aggregated"] == ledger.aggregated
        assert counts["duplicates"] == ledger.duplicates
        assert counts["late"] == ledger.late
        assert counts["ticks"] == ledger.ticks
        assert bits(r for r in rows if r["final"]) == bits(r for r in expected.rows if r["final"])
        # Early rows overtaken within a batch are left out; each one that is written is the oracle's.
        assert bits(rows) <= bits(expected.rows)
        assert as_table(pipeline, rows) == as_table(pipeline, expected.rows)
        if all(len(b) == 1 for b in batches):
            assert bits(rows) == bits(expected.rows)

    holds()


def bits(rows: Any) -> set[Any]:
    return {tuple((name, _bits(v)) for name, v in r.items()) for r in rows}


def as_table(pipeline: Pipeline, rows: list[dict[str, Any]]) -> dict[Any, Any]:
    table: dict[Any, Any] = {}
    for r in rows:
        at = (*(r[f] for f in pipeline.key), r["window_start"])
        if at not in table or table[at]["source_offset"] <= r["source_offset"]:
            table[at] = r
    return {at: tuple(_bits(v) for v in r.values()) for at, r in table.items()}


def _bits(v: Any) -> Any:
    if isinstance(v, float):
        return "nan" if v != v else struct.pack(">d", v)
    return tuple(_bits(x) for x in v) if isinstance(v, list) else v
