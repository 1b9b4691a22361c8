"""The workers' account of every partition, held against what the log, the late topic and the dead-letter topic have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fluvial.services.ledger import LedgerLine


@dataclass(frozen=True, slots=True)
class LogAccount:
    """What a partition's log has: its first offset, its end, and the records present before ``covered``."""

    begin: int
    end: int
    covered: int
    present: int

    @property
    def gaps(self) -> int:
        """Offsets before ``covered`` that hold no record: transaction markers, aborted and compacted records."""
        return max(self.covered - self.begin, 0) - self.present


@dataclass(frozen=True, slots=True)
class Kept:
    """How many different records a topic of late events or dead letters has; ``cut`` when retention took some of them.

    ``shared`` when it may hold some of an older generation, which do not say so.
    """

    topic: str
    records: int
    cut: bool
    shared: bool = False


@dataclass(frozen=True, slots=True)
class AuditedLine:
    """One pipeline's account of one partition and what was found; no ``problems``: it adds up. ``notes`` are no faults.

    Of a partition without a checkpoint ``ledger`` is None.
    """

    topic: str
    partition: int
    pipeline: str
    ledger: LedgerLine | None
    log: LogAccount
    late: Kept
    dead: Kept
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def waiting(self) -> int:
        """Offsets of the log that the account does not cover yet."""
        return max(self.log.end - max(self.log.covered, self.log.begin), 0)


def judge(
    place: tuple[str, int, str], ledger: LedgerLine | None, log: LogAccount, late: Kept, dead: Kept
) -> AuditedLine:
    """Return what is wrong with an account, in words."""
    if ledger is None:
        note = "nothing read yet" if log.end > log.begin else "empty"
        return AuditedLine(*place, None, log, late, dead, (), (note,))
    problems = [*_sums(ledger), *_against_the_log(ledger, log)]
    problems += _against_kept(late, ledger.late, "late events")
    problems += _against_kept(dead, ledger.dead_lettered, "dead letters")
    notes = []
    if log.begin and log.covered >= log.begin:
        notes.append(f"the log begins at {log.begin:,} now: what was before cannot be counted again")
    if log.gaps > 0:
        notes.append(f"{log.gaps:,} offsets hold no record (transaction markers, compaction)")
    if ledger.skipped:
        notes.append(f"{ledger.skipped:,} offsets were deleted before they were read, and skipped as was chosen")
    notes.extend(f"{kept.topic} has lost its oldest records to retention" for kept in (late, dead) if kept.cut)
    return AuditedLine(*place, ledger, log, late, dead, tuple(problems), tuple(notes))


def _sums(ledger: LedgerLine) -> Iterable[str]:
    fates = ledger.ticks + ledger.aggregated + ledger.duplicates + ledger.late + ledger.dead_lettered
    if ledger.records > fates:
        yield f"{ledger.records - fates:,} of {ledger.records:,} records read have no fate"
    elif ledger.records < fates:
        yield f"{fates - ledger.records:,} more fates than the {ledger.records:,} records read"


def _against_the_log(ledger: LedgerLine, log: LogAccount) -> Iterable[str]:
    if log.covered > log.end:
        yield (
            f"the ledger covers offset {log.covered:,} and the log ends at {log.end:,}: was the topic made anew? "
            "Then raise worker.generation"
        )
        return
    if log.covered < log.begin:
        yield f"{log.begin - log.covered:,} offsets were deleted from the log before they were read"
    if ledger.records < log.present:
        yield f"{log.present - ledger.records:,} of the log's {log.present:,} records were not counted"
    elif ledger.records > log.present + min(log.begin, log.covered):
        more = ledger.records - log.present - min(log.begin, log.covered)
        yield f"{more:,} more records were counted than the log has ({log.present:,})"


def _against_kept(kept: Kept, counted: int, what: str) -> Iterable[str]:
    if kept.records > counted and not kept.shared:
        yield f"{kept.topic} has {kept.records:,} {what} of it, the ledger {counted:,}"
    elif kept.records < counted and not kept.cut:
        yield f"{counted - kept.records:,} of {counted:,} {what} are not in {kept.topic}"


def against_recomputed(ledger: LedgerLine, recomputed: Mapping[str, int]) -> list[str]:
    """Return where the account differs from the oracle's."""
    return [
        f"{name.replace('_', '-')}: the ledger has {getattr(ledger, name):,}, recomputed are {value:,}"
        for name, value in recomputed.items()
        if getattr(ledger, name) != value
    ]
