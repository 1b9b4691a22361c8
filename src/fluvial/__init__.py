"""fluvial: events from Kafka, aggregated in event time by Faust, exact in Cassandra."""

__version__ = "0.1.0"
