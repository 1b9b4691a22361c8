"""A worker's generation against those that replays have taken."""

import logging

from fluvial.cassandra import CassandraError, connected
from fluvial.schemas.catalog import Catalog
from fluvial.services.replay_records import ReplayError, ReplayRecord, ReplayRecords
from fluvial.settings import Settings
from fluvial.stream_apps.plan import chosen

log = logging.getLogger(__name__)


def check_generation(settings: Settings, catalog: Catalog) -> None:
    """Refuse a raised generation that a replay has taken meanwhile; where Cassandra is away, only warn.

    A worker with a raised generation reads the log anew, and the rows of a replay with that generation or a higher one
    would go on hiding what it writes. Blocking; asks nothing as long as the generation is 0.

    Raises:
        ReplayError: that is so; the hint has the generation to start with.
    """
    generation = settings.worker.generation
    if generation == 0:
        return
    pipelines = [p.name for p in chosen(catalog.pipelines, settings.worker.pipelines)]
    try:
        with connected(settings.cassandra, "read") as session:
            records = ReplayRecords(session, settings.cassandra.keyspace)
            runs = [r for name in pipelines for r in records.of(name)]
    except (CassandraError, ReplayError) as e:
        log.warning("Cannot see whether generation %d is above every replay's: %s", generation, e.message)
        return
    newest = hiding(runs, generation)
    if newest is not None:
        raise ReplayError(
            f"a replay of {newest.pipeline} took generation {newest.generation} meanwhile: its rows would hide those of "
            f"this worker's generation {generation}",
            hint=f"worker.generation={newest.generation + 1} is above all of them",
        )


def hiding(runs: list[ReplayRecord], generation: int) -> ReplayRecord | None:
    """Return the replay of the greatest generation that hides a worker's rows, if its generation was raised too little.

    Replays above a worker's unchanged generation are as it should be: they correct what it wrote. One that was made while
    the worker had a lower generation than now, and took one that is not below the new one, hides the new rows.
    """
    found = [r for r in runs if r.into_result_topic and r.worker_generation < generation <= r.generation]
    return max(found, key=lambda r: r.generation, default=None)
