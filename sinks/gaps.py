"""What a person can do when rows were deleted from a result topic before the sink wrote them."""

from collections.abc import Sequence

from fluvial.transport.available import Gap, utc


def choices(gaps: Sequence[Gap]) -> str:
    """Return the ways to go on, as commands."""
    accept = " ".join(f"--from-available {g.choice}" for g in gaps)
    if not any(g.lost for g in gaps):
        return f"write all that the topic has now, which changes nothing that is right: fluvial sink {accept}"
    until = [g.first_ms for g in gaps if g.first_ms is not None]
    when = f" (published before {utc(max(until))})" if until else ""
    return (
        f"1. go on with the rows that are left, once: fluvial sink {accept}. "
        f"2. Then make the lost rows{when} anew from the events: fluvial replay PIPELINE --from … --to …. "
        "3. Keep rows longer than a sink may be away: the topic's retention.ms"
    )
