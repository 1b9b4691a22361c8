"""The ledger: where every record of every source partition went, as of the newest checkpoints."""

from dataclasses import dataclass

from fluvial.schemas.catalog import Catalog
from fluvial.services.partitions import partition_counts
from fluvial.services.progress import GroupProgress
from fluvial.settings import Settings
from fluvial.stream_apps.checkpoints import CheckpointStore, Place
from fluvial.stream_apps.plan import chosen, plan_topics
from fluvial.stream_apps.worker import checkpoint_topic


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One pipeline's account of one partition, up to (not including) ``covered``; ``end`` is the log's end now."""

    topic: str
    partition: int
    pipeline: str
    covered: int
    end: int
    records: int
    ticks: int
    aggregated: int
    duplicates: int
    late: int
    dead_lettered: int
    # Offsets that were deleted from the log before they were read: not among the records.
    skipped: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether every record has exactly one fate."""
        return self.records == self.ticks + self.aggregated + self.duplicates + self.late + self.dead_lettered


def read_ledger(settings: Settings, catalog: Catalog) -> list[LedgerLine]:
    """Return the ledger of every pipeline and partition that has a checkpoint. Blocking.

    Raises:
        ProvisioningError, TransportError, CheckpointError: Kafka does not answer or lacks a topic.
    """
    plans = plan_topics(chosen(catalog.pipelines, settings.worker.pipelines))
    checkpoints = checkpoint_topic(settings.worker.group)
    counts = partition_counts(settings.kafka, {*plans, checkpoints})
    ends = {
        (p.topic, p.partition): p.end for p in GroupProgress(settings.kafka).positions(settings.worker.group, plans)
    }
    places = [Place(t, p, settings.worker.generation) for t in plans for p in range(counts[t])]
    ledgers = CheckpointStore(settings.kafka, checkpoints, counts[checkpoints]).ledgers(places)
    return [
        LedgerLine(place.topic, place.partition, pipeline, covered, ends[place.topic, place.partition], **counted)
        for place, (covered, ledger) in sorted(ledgers.items(), key=lambda item: (item[0].topic, item[0].partition))
        for pipeline, counted in ledger.items()
    ]
