"""What declarations add up to, and that the shipped CQL tables fit them."""

from dataclasses import replace
from pathlib import Path

import pytest

from fluvial.errors import PipelineError, SchemaError
from fluvial.schemas.avro import SCHEMA_DIR, load_schema
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Declaration
from fluvial.schemas.decoder import Decoder
from fluvial.schemas.encoder import Encoder
from fluvial.schemas.migrations import Migration, migrations_in, statements
from fluvial.schemas.sources import SchemaMap
from fluvial.schemas.tables import cql_type, table_spec
from fluvial.schemas.topics import HANDLED_TOPIC, topic_specs
from fluvial.settings import KafkaSettings
from fluvial.stream_apps.shipped import DECLARATION, POSTS_BY_HASHTAG, SENSOR_MINUTE, TRENDING_HOUR

CATALOG = Catalog([DECLARATION])


def test_result_rows_have_their_fields_in_the_contracts_order() -> None:
    assert [f["name"] for f in CATALOG.schema_of("fluvial.sensor_minute")["fields"]] == [
        *("sensor_id", "metric", "window_start", "window_end"),
        *("count", "sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99"),
        *("duplicates", "final", "generation", "source_partition", "source_offset"),
    ]
    trending = {f["name"]: f["type"] for f in CATALOG.schema_of(TRENDING_HOUR.result_topic)["fields"]}
    assert trending["top"] == {"type": "array", "items": "string"}
    assert trending["top_counts"] == {"type": "array", "items": "double"}


def test_rekeyed_records_say_where_they_come_from() -> None:
    fields = {f["name"]: f["type"] for f in CATALOG.schema_of(POSTS_BY_HASHTAG.topic)["fields"]}
    assert fields["hashtag"] == "string"
    upstream = {name: fields[name] for name in fields if name.startswith("upstream")}
    assert upstream == {"upstream_partition": "int", "upstream_offset": "long", "upstream_index": "int"}


@pytest.mark.parametrize("topic", [t.name for t in CATALOG.topics if t.role in ("events", "rekeyed", "results")])
def test_every_declared_topic_can_be_written_and_read_in_columns(topic: str) -> None:
    schema = CATALOG.schema_of(topic)
    Encoder(schema, 1)
    Decoder(schema, SchemaMap({}))


def test_each_topic_has_its_late_and_dead_letter_topics() -> None:
    roles = {t.name: t.role for t in CATALOG.topics}
    assert roles["iot.readings"] == "events"
    assert roles["iot.readings.late"] == "late"
    assert roles["iot.readings.dead-letter"] == roles["fluvial.sensor_minute.dead-letter"] == "dead-letter"
    assert roles["fluvial.posts-by-hashtag"] == "rekeyed"
    assert len(roles) == len(CATALOG.topics)


def test_topics_are_provisioned_by_their_role() -> None:
    kafka = KafkaSettings(partitions=3, replication_factor=3, min_insync_replicas=2, retention_hours=1)
    specs = {s.name: s for s in topic_specs(CATALOG, kafka, "w")}
    handled = specs.pop(HANDLED_TOPIC)
    assert (handled.partitions, handled.config["cleanup.policy"]) == (1, "compact")
    assert {(s.partitions, s.replication_factor, s.config["min.insync.replicas"]) for s in specs.values()} == {
        (3, 3, "2")
    }
    assert specs["iot.readings"].config["message.timestamp.type"] == "LogAppendTime"
    assert "message.timestamp.type" not in specs["fluvial.sensor_minute"].config
    assert specs["iot.readings"].config["retention.ms"] == "3600000"
    assert specs["iot.readings.dead-letter"].config["retention.ms"] == str(30 * 24 * 3_600_000)
    assert specs["w.checkpoints"].config["cleanup.policy"] == "compact"
    assert int(specs["iot.readings.late"].config["max.message.bytes"]) > int(
        specs["iot.readings"].config["max.message.bytes"]
    )


def test_records_kept_for_ever_have_dead_letters_for_ever() -> None:
    specs = {s.name: s for s in topic_specs(CATALOG, KafkaSettings(retention_hours=-1), "w")}
    assert specs["iot.readings"].config["retention.ms"] == specs["iot.readings.late"].config["retention.ms"] == "-1"


def test_the_shipped_tables_have_a_column_for_every_field() -> None:
    cql = " ".join(s for m in migrations_in(SCHEMA_DIR, "fluvial") for s in statements(m.text))
    for pipeline in CATALOG.pipelines:
        spec = table_spec(pipeline, CATALOG.schema_of(pipeline.result_topic))
        body = cql.split(f"CREATE TABLE IF NOT EXISTS {spec.name} (")[1].split(") WITH")[0]
        for column, kind in spec.columns.items():
            assert f"{column} {kind}," in body, (spec.name, column)
        assert f"PRIMARY KEY (({', '.join(spec.partition_key)}), window_start)" in body


def test_two_pipelines_of_one_name_are_refused() -> None:
    with pytest.raises(PipelineError, match="two pipelines are named sensor_minute"):
        Catalog([DECLARATION, Declaration((SENSOR_MINUTE,))])


def test_a_topic_of_two_events_is_refused() -> None:
    table = replace(SENSOR_MINUTE.table, name="other")
    other = replace(SENSOR_MINUTE, event="fluvial.social.SocialPost", table=table)
    with pytest.raises(SchemaError, match=r"iot.readings is declared to hold"):
        _ = Catalog([DECLARATION, Declaration((other,))]).topics


def test_a_topic_that_nobody_describes_is_refused() -> None:
    with pytest.raises(SchemaError, match="no pipeline says what elsewhere holds"):
        CATALOG.schema_of("elsewhere")


def test_an_avro_file_is_found_by_its_schemas_name(tmp_path: Path) -> None:
    (tmp_path / "shop.Order.avsc").write_text('{"type": "record", "name": "shop.Order", "fields": []}')
    assert load_schema("shop.Order", tmp_path)["name"] == "shop.Order"
    (tmp_path / "shop.Cart.avsc").write_text('{"type": "record", "name": "Order", "namespace": "shop", "fields": []}')
    with pytest.raises(SchemaError, match=r"shop.Cart.avsc declares shop.Order, not shop.Cart"):
        load_schema("shop.Cart", tmp_path)
    with pytest.raises(SchemaError, match=r"add shop.Basket.avsc"):
        load_schema("shop.Basket", tmp_path)


def test_statements_are_split_outside_of_strings_and_comments() -> None:
    text = "-- one; two\nCREATE  TABLE a (\n x text); /* ; */ INSERT INTO a (x) VALUES ('it''s; -- so'); // end\n"
    assert statements(text) == ["CREATE TABLE a ( x text)", "INSERT INTO a (x) VALUES ('it''s; -- so')"]


def test_comments_do_not_change_a_migrations_checksum() -> None:
    one, other = Migration("s", "n", "CREATE TABLE a (x int);"), Migration("s", "n", "-- why\nCREATE TABLE\n a (x int)")
    assert one.checksum == other.checksum
    assert one.checksum != Migration("s", "n", "CREATE TABLE a (x text);").checksum


def test_avro_types_have_cql_types() -> None:
    assert cql_type(["null", "string"]) == "text"
    assert cql_type({"type": "long", "logicalType": "timestamp-millis"}) == "timestamp"
    assert cql_type({"type": "array", "items": "double"}) == "frozen<list<double>>"
