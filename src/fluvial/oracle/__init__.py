"""The contract once more, one event at a time: what the log says every row must be, by code that shares none with the engine."""
