"""The ingest edge: batches of events by gRPC and HTTP, acknowledged once Kafka has them durably."""
