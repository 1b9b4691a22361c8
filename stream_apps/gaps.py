"""What a person can do when records were deleted before a worker read them."""

from collections.abc import Mapping, Sequence

from faust.types import TP

from fluvial.transport.available import Gap, utc


def choices(gaps: Sequence[Gap], newest_ms: Mapping[TP, int], generation: int) -> str:
    """Return the ways to go on, as commands; ``newest_ms`` is the event time that each partition had come to."""
    anew = [g for g in gaps if not g.lost]
    if anew:
        return f"if it was created anew, {made_anew(generation)}; if its log lost its end, restore it first"
    accept = " ".join(f"--from-available {g.choice}" for g in gaps)
    spans = [_span(g, newest_ms.get(TP(g.topic, g.partition))) for g in gaps]
    return (
        f"1. go on without them, once, which the ledger keeps as skipped: fluvial worker {accept}; "
        f"windows that lack events then: {'; '.join(spans)}. "
        "2. If `fluvial archive` has them: do 1, then write those windows anew with fluvial replay PIPELINE --archive DIR "
        "--from … --to …. 3. Keep records longer than a worker may be away: the topic's retention.ms"
    )


def made_anew(generation: int) -> str:
    """Return what to do about a topic that was deleted and created again."""
    return (
        "its offsets start anew: read it under a higher generation, whose rows win: "
        f"fluvial worker --generation {generation + 1} (and keep it in worker.generation)"
    )


def _span(gap: Gap, newest_ms: int | None) -> str:
    # A record's timestamp is the broker's where the topic is so set: it bounds when an event was published, not its time.
    since = "the last event read" if newest_ms is None else f"event time {utc(newest_ms)}"
    until = "the first record left" if gap.first_ms is None else f"what was published at {utc(gap.first_ms)}"
    return f"{gap.topic}[{gap.partition}] from about {since} to {until}"
