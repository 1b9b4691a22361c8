"""Sinks: result topics to Cassandra."""
