"""Everything that puts events into Kafka: simulations, imports of files, and the clock ticks of live topics."""
