"""From which columns an event's fields are filled: what was asked for, checked against the event and the files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import pyarrow as pa

from fluvial.producers.cells import DEFAULT_NULLS, column_of
from fluvial.producers.chunks import ImportFileError, Melted, Source
from fluvial.producers.fields import Field
from fluvial.producers.rejections import Faults
from fluvial.producers.times import TimeRules
from fluvial.records import Column
from fluvial.schemas.columns import double_lists, string_lists

METRIC, VALUE = "metric", "value"
SHOWN = 60


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What the user asked for, by field: a column, a constant (as text), or columns of which a hash is made.

    ``melt`` holds measure columns: ``column``, ``metric=column``, or ``prefix.*`` for every number below a prefix.
    ``nulls`` are texts that mean null where a number or a time should be.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    melt: tuple[str, ...] = ()
    times: TimeRules = field(default_factory=TimeRules)
    nulls: tuple[str, ...] = DEFAULT_NULLS


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """A checked request: each field of the event has exactly one origin, or its default.

    ``key`` is the field that becomes the record's key; ``not_empty`` are text fields that must not be empty.
    ``constants`` hold columns of one row.
    """

    fields: tuple[Field, ...]
    key: str
    not_empty: frozenset[str]
    columns: Mapping[str, str]
    constants: Mapping[str, Column]
    hashes: Mapping[str, tuple[str, ...]]
    melt: tuple[Melted, ...]
    times: TimeRules
    nulls: tuple[str, ...]

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Every column that is read, measures aside."""
        return tuple(dict.fromkeys([*self.columns.values(), *(c for h in self.hashes.values() for c in h)]))


def plan_import(
    request: ImportRequest, fields: Sequence[Field], key: str, not_empty: frozenset[str], sources: Sequence[Source]
) -> ImportPlan:
    """Check a request against an event's fields and the files; fields that nobody mentions take columns of their name.

    Raises:
        ImportFileError: a field or column does not exist, a field has two origins or lacks one, a constant is wrong.
    """
    by_name = {f.name: f for f in fields}
    melting = (METRIC, VALUE) if request.melt else ()
    taken: dict[str, str] = dict.fromkeys(melting, "--melt")
    for option, names in (("--map", request.columns), ("--constant", request.constants), ("--hash", request.hashes)):
        for name in names:
            if name not in by_name:
                raise ImportFileError(
                    f"{option} {name}=…: the event has no field {name}", hint=_choice(name, list(by_name), "fields are")
                )
            if name in taken:
                raise ImportFileError(f"field {name} is filled by {taken[name]} and by {option}", hint="decide on one")
            if by_name[name].kind == "unsupported":
                raise ImportFileError(f"field {name} has a type that cannot be imported", hint="leave it out")
            taken[name] = option
    if request.melt and not _can_melt(by_name):
        raise ImportFileError(
            "--melt needs an event with a text field metric and a number field value",
            hint=f"fields are {', '.join(by_name)}",
        )
    for name in request.hashes:
        if by_name[name].kind != "text":
            raise ImportFileError(f"--hash {name}=…: field {name} is not a text", hint="a hash is a text")
    hashed = [c for columns in request.hashes.values() for c in columns]
    _check_columns([*request.columns.values()], sources, "--map")
    _check_columns(hashed, sources, "--hash")
    free = [f for f in fields if f.name not in taken and f.kind != "unsupported"]
    columns = {**request.columns, **{f.name: f.name for f in free if _everywhere(f, sources)}}
    used = frozenset([*columns.values(), *hashed])
    melt = tuple(_melted(text, sources, used) for text in request.melt)
    _check_columns([m.column for m in melt if not m.every_leaf], sources, "--melt")
    _check_metrics(melt)
    lacking = [f.name for f in fields if f.required and f.name not in taken and f.name not in columns]
    if lacking:
        raise ImportFileError(
            f"the event needs {' and '.join(lacking)}",
            hint="say where from: "
            + " ".join(f"--map {f}=COLUMN" for f in lacking)
            + f"; columns are {_listed(sources[0].available())}",
        )
    constants = {name: _constant(by_name[name], text, request) for name, text in request.constants.items()}
    return ImportPlan(
        tuple(fields), key, not_empty, columns, constants, request.hashes, melt, request.times, request.nulls
    )


def default_column(f: Field) -> Column:
    """Return the one row that a field without an origin holds: its default, or null."""
    if f.kind == "texts":
        return string_lists([list(f.default or ())])
    if f.kind == "numbers":
        return double_lists([list(f.default or ())])
    null = pa.array([None if f.default is None else str(f.default) if f.kind == "text" else f.default])
    return column_of(null, f, TimeRules(epoch_unit="ms" if f.per_second == 1_000 else "us"), (), Faults(1), f.name)


def _can_melt(fields: Mapping[str, Field]) -> bool:
    return METRIC in fields and VALUE in fields and fields[METRIC].kind == "text" and fields[VALUE].kind == "number"


def _everywhere(f: Field, sources: Sequence[Source]) -> bool:
    """Whether a field takes the column of its name; for one that needs a value, the column has to be there for sure."""
    return all(not s.missing([f.name]) if f.required else s.may_have(f.name) for s in sources)


def _melted(text: str, sources: Sequence[Source], used: frozenset[str]) -> Melted:
    if text == "*" or text.endswith(".*"):
        prefix = text[:-2]
        if not any(s.leaves(prefix) for s in sources):
            raise ImportFileError(
                f"--melt {text}: {sources[0].path} has no typed numbers there",
                hint=f"name the columns; there are {_listed(sources[0].available())}",
            )
        return Melted("", prefix, every_leaf=True, without=used)
    metric, equals, column = text.partition("=")
    if equals and sources[0].missing([text]):
        return Melted(metric, column)
    _check_columns([text], sources, "--melt")
    return Melted(sources[0].last_name(text), text)


def _check_columns(columns: Sequence[str], sources: Sequence[Source], option: str) -> None:
    for s in sources:
        missing = s.missing(list(dict.fromkeys(columns)))
        if missing:
            raise ImportFileError(
                f"{option}: {s.path} has no column {missing[0]}", hint=_choice(missing[0], s.available(), "columns are")
            )


def _check_metrics(melt: Sequence[Melted]) -> None:
    named = [m.metric for m in melt if not m.every_leaf]
    for metric in named:
        if named.count(metric) > 1:
            raise ImportFileError(
                f"--melt: two columns would both be the metric {metric}", hint="name them: --melt NAME=COLUMN"
            )


def _constant(f: Field, text: str, request: ImportRequest) -> Column:
    faults = Faults(1)
    items = [t.strip() for t in text.split(",")] if text else []
    if f.kind == "texts":
        return string_lists([items])
    cell = pa.array([items] if f.kind == "numbers" else [text], pa.list_(pa.string()) if f.kind == "numbers" else None)
    column = column_of(cell, f, request.times, (), faults, f.name)
    if faults.bad_rows().size:
        raise ImportFileError(f"--constant {f.name}={text}: {faults.reason(0)}", hint="correct the constant")
    return column


def _choice(wrong: str, names: Sequence[str], label: str) -> str:
    close = get_close_matches(wrong, names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"{label} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
