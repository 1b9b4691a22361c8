"""What is measured, by name."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jvm
import load
import processes
import quix_environment
from bench import ENVIRONMENT, Bench, Result, result_of

from fluvial.schemas.avro import SCHEMA_DIR

HERE = Path(__file__).resolve().parent
PARTITIONS = 4
READING = str(SCHEMA_DIR / "iot.SensorReading.avsc")
# Of the events of a full topic, so that a slow peer takes about as long as a quick one.
ONE_BY_ONE_SHARE = 0.02
KAFKA_STREAMS_SHARE = 0.5
# As often as Flink's for the same state; a hundred times the state is worth writing less often (the default is 10).
CHECKPOINT_SECONDS = {"1k": 1.0, "100k": 5.0}
FLINK_SLOTS = (1, 2)
KAFKA_STREAMS_THREADS = 2


def _worker(bench: Bench, name: str, size: str, processes_of_the_group: int, checkpoint_seconds: float) -> Result:
    topic = bench.topic(size)
    table = "bench_" + name.replace("-", "_")
    runs = []
    for i in range(bench.repeats):
        worker = {"group": f"bench-{name}-{bench.stamp}-{i}", "checkpoint_seconds": checkpoint_seconds}
        settings = bench.kafka().model_copy(update={"worker": bench.kafka().worker.model_copy(update=worker)})
        load.provision(settings, load.catalog_of(topic, f"{table}_{i}"))
        share = str(PARTITIONS // processes_of_the_group)
        command = [*_script("worker"), settings.model_dump_json(), topic, f"{table}_{i}", share]
        runs.append(bench.catch_up(name, [command] * processes_of_the_group))
    every = f"every {checkpoint_seconds:g} s" if checkpoint_seconds != 1 else "every second"
    return result_of(name, runs, f"checkpoints {every}")


def worker_1k(bench: Bench) -> Result:
    """Fluvial's worker, 1,000 sensors."""
    return _worker(bench, "worker-1k", "1k", 1, CHECKPOINT_SECONDS["1k"])


def worker_100k(bench: Bench) -> Result:
    """Fluvial's worker, 100,000 sensors."""
    return _worker(bench, "worker-100k", "100k", 1, CHECKPOINT_SECONDS["100k"])


def worker_2_processes(bench: Bench) -> Result:
    """Two of fluvial's workers in one group, two partitions each."""
    return _worker(bench, "worker-2-processes", "1k", 2, CHECKPOINT_SECONDS["1k"])


def raw_consume(bench: Bench) -> Result:
    """Reading alone: the ceiling."""
    topic = bench.topic("1k")
    command = [*_script("raw"), bench.kafka().kafka.brokers, topic, f"bench-raw-{bench.stamp}"]
    runs = [bench.catch_up("raw-consume", [command]) for _ in range(bench.repeats)]
    return result_of("raw-consume", runs, "confluent-kafka consume(), nothing decoded")


def stock_faust(bench: Bench) -> Result:
    """Stock Faust."""
    topic = bench.topic("1k")
    group = f"bench-faust-{bench.stamp}"
    command = [*_script("faust"), bench.kafka().kafka.brokers, topic, group, READING, str(PARTITIONS)]
    run = bench.catch_up("faust", [command], int(bench.events * ONE_BY_ONE_SHARE))
    return result_of("faust", [run], "windowed table in memory, fastavro")


def quix_streams(bench: Bench) -> Result:
    """Quix Streams.

    Raises:
        UnavailableError: it cannot be installed.
    """
    python = quix_environment.python(bench.build / "bench-quix", bench.say)
    topic = bench.topic("1k")
    group = f"bench-quix-{bench.stamp}"
    script = str(HERE / "measured_quix.py")
    command = [str(python), script, bench.kafka().kafka.brokers, topic, group, READING, _state(bench, group)]
    run = bench.catch_up("quix", [command], int(bench.events * ONE_BY_ONE_SHARE))
    return result_of("quix", [run], f"Quix Streams {quix_environment.VERSION}, RocksDB, fastavro")


def kafka_streams(bench: Bench) -> Result:
    """Kafka Streams."""
    program = jvm.command("kafka-streams", "KafkaStreamsPeer", bench.build / "bench-classes")
    topic, kafka = bench.topic("1k"), bench.kafka().kafka
    group = f"bench-kafka-streams-{bench.stamp}"
    output = f"{group}-minutes"
    load.create_topic(kafka, output, PARTITIONS)
    arguments = [kafka.brokers, topic, READING, group, output, _state(bench, group), str(KAFKA_STREAMS_THREADS)]
    run = bench.catch_up("kafka-streams", [[*program, *arguments]], int(bench.events * KAFKA_STREAMS_SHARE))
    return result_of("kafka-streams", [run], f"{KAFKA_STREAMS_THREADS} threads, at least once, RocksDB")


def flink(bench: Bench) -> Result:
    """Flink, with the number of slots that is better in wall time."""
    program = jvm.command("flink", "FlinkPeer", bench.build / "bench-classes")
    topic, brokers = bench.topic("1k"), bench.kafka().kafka.brokers
    found = {}
    for slots in FLINK_SLOTS:
        arguments = [brokers, topic, READING, f"bench-flink-{bench.stamp}-{slots}", str(slots)]
        found[slots] = bench.catch_up(f"flink-{slots}", [[*program, *arguments]])
    best = max(found, key=lambda slots: found[slots].span.events_per_second)
    speeds = ", ".join(f"{n} slot{'s' * (n > 1)} {r.span.events_per_second:,.0f} /s" for n, r in found.items())
    return result_of("flink", [found[best]], f"local, heap state, checkpoints every second; {speeds}")


def _measuring_itself(bench: Bench, name: str, module: str, function: str, settings: str) -> Result:
    command = [*_script("call"), module, function, settings]
    told = json.loads(processes.call(command, bench.log(name), ENVIRONMENT))
    return Result(name, told["rows"], told["seconds"], told["cpu_seconds"], told["peak_mb"], told.get("note", ""))


def sink(bench: Bench) -> Result:
    """Fluvial's sink into one Cassandra node."""
    return _measuring_itself(bench, "sink", "sink", "measure_sink", bench.cassandra().model_dump_json())


def sink_per_row(bench: Bench) -> Result:
    """The driver's execute_concurrent, one statement per row, into the same node."""
    return _measuring_itself(bench, "sink-per-row", "sink", "measure_per_row", bench.cassandra().model_dump_json())


def import_csv(bench: Bench) -> Result:
    """`fluvial import` of a CSV file."""
    return _measuring_itself(bench, "import-csv", "imports", "measure_csv", bench.kafka().model_dump_json())


def import_parquet(bench: Bench) -> Result:
    """`fluvial import` of a Parquet file."""
    return _measuring_itself(bench, "import-parquet", "imports", "measure_parquet", bench.kafka().model_dump_json())


def gateway_avro(bench: Bench) -> Result:
    """`fluvial gateway`, gRPC with Avro."""
    return _measuring_itself(bench, "gateway-avro", "gateway", "measure_avro", bench.kafka().model_dump_json())


def gateway_typed(bench: Bench) -> Result:
    """`fluvial gateway`, gRPC with typed messages."""
    return _measuring_itself(bench, "gateway-typed", "gateway", "measure_typed", bench.kafka().model_dump_json())


def gateway_ndjson(bench: Bench) -> Result:
    """`fluvial gateway`, HTTP with NDJSON."""
    return _measuring_itself(bench, "gateway-ndjson", "gateway", "measure_ndjson", bench.kafka().model_dump_json())


def gateway_baseline(bench: Bench) -> Result:
    """FastAPI and one produce per event."""
    return _measuring_itself(bench, "gateway-baseline", "gateway", "measure_baseline", bench.kafka().model_dump_json())


def _script(name: str) -> list[str]:
    return [sys.executable, str(HERE / f"measured_{name}.py")]


def _state(bench: Bench, name: str) -> str:
    return str(bench.build / "bench-state" / name)


CASES: Mapping[str, Callable[[Bench], Result]] = {
    "worker-1k": worker_1k,
    "worker-100k": worker_100k,
    "worker-2-processes": worker_2_processes,
    "faust": stock_faust,
    "quix": quix_streams,
    "kafka-streams": kafka_streams,
    "flink": flink,
    "raw-consume": raw_consume,
    "import-csv": import_csv,
    "import-parquet": import_parquet,
    "gateway-avro": gateway_avro,
    "gateway-typed": gateway_typed,
    "gateway-ndjson": gateway_ndjson,
    "gateway-baseline": gateway_baseline,
    "sink": sink,
    "sink-per-row": sink_per_row,
}
