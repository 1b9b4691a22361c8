"""A rehearsal compiles what a worker's real work needs."""

import subprocess
import sys

SCRIPT = """
import gc, random, sys
import numpy as np
from numba.core.registry import CPUDispatcher
from fluvial.schemas.avro import DatumWriter, load_schema
from fluvial.schemas.catalog import DEAD_LETTER, LATE_EVENT, Catalog
from fluvial.schemas.columns import repeated, spans_from_strings
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.dead_letters import DeadLetterLimit
from fluvial.schemas.sources import SchemaMap
from fluvial.records import RecordColumns
from fluvial.stream_apps import outputs
from fluvial.stream_apps.plan import plan_topics
from fluvial.stream_apps.rehearsal import rehearse
from fluvial.stream_apps.shipped import DECLARATION
from fluvial.stream_apps.stage import PartitionStage

catalog = Catalog([DECLARATION])
plans = plan_topics(catalog.pipelines)
schemas = {t: catalog.schema_of(t) for t in plans}
written = {t.name: t.schema for t in catalog.topics}
encoders = {n: Encoder(s, 1) for n, s in written.items() if not n.endswith("dead-letter")}
writers = outputs.Writers(encoders, DatumWriter(load_schema(DEAD_LETTER), 1))
partitions = {t.name: 2 for t in catalog.topics}

def compiled():
    return {(d.__module__, d.__name__): len(d.signatures) for d in gc.get_objects() if isinstance(d, CPUDispatcher)}

rehearse(plans, schemas, writers, partitions)
before = compiled()

rng = random.Random(1)
schema = schemas["iot.readings"]
writer = DatumWriter(schema, 1)
times = sorted(rng.randrange(0, 3_600_000) for _ in range(500))
values = [writer.write({"sensor_id": f"s{rng.randrange(5)}", "site": "", "metric": "t", "event_time": t - rng.randrange(200_000),
    "value": rng.random(), "unit": None, "sequence": i // 2}) for i, t in enumerate(times)]
n = len(values)
records = RecordColumns("iot.readings", 0, np.arange(n), np.full(n, 10**12), repeated("s", n), spans_from_strings(values),
    np.zeros(n, np.int64), n)
stage = PartitionStage(plans["iot.readings"], 0, Decoder(schema, SchemaMap({1: schema})),
    limit=DeadLetterLimit(ratio=1.0, run=1000), max_ahead_ms=0)
made = outputs.encode(stage.process(records), plans["iot.readings"], writers, partitions)
outputs.encode(stage.open_rows(), plans["iot.readings"], writers, partitions)
stage.state(stage.room())
assert {m.topic for m in made} == {"fluvial.sensor_minute", "fluvial.sensor_hour", "iot.readings.late"}, made
more = {name: k for name, k in compiled().items() if k > before.get(name, 0)}
print(sorted(more) if more else "nothing more")
"""


def test_nothing_is_compiled_after_the_rehearsal() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=110)
    assert done.stdout.strip() == "nothing more", done.stdout + done.stderr
