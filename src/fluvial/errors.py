"""Errors that a person is meant to read: what happened, where, and what to do next."""


class FluvialError(Exception):
    """The base of every error raised on purpose.

    The message says what and where; ``hint`` says what to do next. The command line prints both and no traceback.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SettingsError(FluvialError):
    """A setting is unknown, malformed or contradicts another."""


class ClusterError(FluvialError):
    """A local server could not be resolved, started or stopped."""


class ProvisioningError(FluvialError):
    """A topic, subject or table exists with other settings than declared."""


class SchemaError(FluvialError):
    """A schema is unknown, unsupported or not resolvable against the reader's."""


class TransportError(FluvialError):
    """Record batches could not be fetched, verified or acknowledged."""


class CorruptRecordBatchError(TransportError):
    """A record batch failed its checksum or cannot be parsed."""


class PublishError(FluvialError):
    """A record was not acknowledged by Kafka; it may or may not be in the log."""


class CheckpointError(FluvialError):
    """A checkpoint is corrupt, foreign or of another version."""


class PipelineError(FluvialError):
    """A pipeline's declaration is contradictory."""


class SinkError(FluvialError):
    """Cassandra refused a write for a reason that a retry cannot mend."""


class DeadLetterLimitError(FluvialError):
    """So many records of a partition are bad that stopping is safer than setting them all aside."""


class AuditError(FluvialError):
    """An audit could not be made, so that nothing is known: neither that all is right nor that something is wrong."""
