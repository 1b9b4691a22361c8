"""Newline-delimited JSON: one object per line, values addressed by dotted paths."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fluvial.producers.chunks import Blocks, Chunk, Measure, Melted, damaged
from fluvial.producers.rejections import Rejected

BLOCK_BYTES = 4 << 20
LONGEST_LINE = 64 << 20
SAMPLE = 1_000
DEEPEST = 64
Path_ = tuple[str, ...]


class NdjsonFile:
    """An NDJSON file, also gzipped.

    A column is a key, or a dotted path: ``a.b.0`` is item 0 of list b in object a. A key that has dots itself is found
    first. A path that a line does not have is null there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._resolved: dict[str, Path_] = {}
        self._available: list[str] | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return those columns that no line has; reads on until each has been seen."""
        wanted = [c for c in columns if c not in self._resolved]
        for record in self._records():
            if not wanted:
                break
            for c in wanted:
                steps = resolve(record, c)
                if steps is not None:
                    self._resolved[c] = steps
            wanted = [c for c in wanted if c not in self._resolved]
        return wanted

    def available(self) -> list[str]:
        """Return the paths of all values (lists as one) in the first lines."""
        if self._available is None:
            names: dict[str, None] = {}
            for record in islice(self._records(), SAMPLE):
                names |= dict.fromkeys(_paths(record))
            self._available = list(names)
        return self._available

    def may_have(self, column: str) -> bool:
        """Return true: the next line may have it."""
        return True

    def last_name(self, column: str) -> str:
        """Return the last key of a path that `missing` has found, and the list positions behind it."""
        steps = self._resolved.get(column, (column,))
        keys = [i for i, s in enumerate(steps) if not s.isdigit()]
        return ".".join(steps[keys[-1] if keys else 0 :])

    def leaves(self, prefix: str) -> list[str]:
        """Return the paths below a prefix ('' is all) that hold numbers in the first lines that have any."""
        names: dict[str, None] = {}
        steps: Path_ | None = ()
        for number, record in enumerate(self._records()):
            if number >= SAMPLE and names:
                break
            if prefix:
                steps = resolve(record, prefix)
            if steps is not None:
                names |= dict.fromkeys(".".join((*steps, leaf)) for leaf in _numbers(dig(record, steps)))
        return list(names)

    def chunks(self, columns: Sequence[str], melted: Sequence[Melted]) -> Iterator[Chunk]:
        """Read the file from its start; the measures of ``every_leaf`` are those that a chunk has, by name."""
        # A name without dots is a key of the record; only paths have to be found first.
        self.missing([c for c in (*columns, *(m.column for m in melted)) if "." in c])
        blocks = Blocks(self._path, BLOCK_BYTES)
        rest, line = b"", 1
        for block in blocks:
            whole, found, rest_of = (rest + block).rpartition(b"\n")
            rest = rest_of
            if found:
                lines = whole.split(b"\n")
                yield self._chunk(lines, line, columns, melted, blocks.position)
                line += len(lines)
            elif len(rest) > LONGEST_LINE:
                blocks.damage = "no line ends within 64 MB from here on"
                break
        if blocks.damage:
            lost = [damaged(line, blocks.damage)]
            empty = {c: pa.array([], pa.null()) for c in columns}
            yield Chunk(empty, [], np.zeros(0, np.int64), lost, str, 1, blocks.position)
        elif rest.strip():
            yield self._chunk([rest], line, columns, melted, blocks.position)

    def _chunk(
        self, lines: list[bytes], first: int, columns: Sequence[str], melted: Sequence[Melted], position: int
    ) -> Chunk:
        records: list[dict[str, Any]] = []
        numbers: list[int] = []
        rejected: list[Rejected] = []
        for number, raw in enumerate(lines, first):
            if not raw.strip():
                continue
            record, reason = _parsed(raw)
            if record is None:
                rejected.append(Rejected(number, reason, _text(raw)))
            else:
                records.append(record)
                numbers.append(number)
        cells = {c: arrow_of([dig(r, self._resolved.get(c, (c,))) for r in records]) for c in columns}
        measures: list[Measure] = []
        for m in melted:
            steps = self._resolved.get(m.column, (m.column,) if m.column else ())
            if m.every_leaf:
                measures += _leaf_measures([_numbers(dig(r, steps)) for r in records], m)
            else:
                measures.append(Measure(m.metric, arrow_of([dig(r, steps) for r in records])))
        return Chunk(
            cells,
            measures,
            np.array(numbers, np.int64),
            rejected,
            lambda i: _text(lines[numbers[i] - first]),
            len(records) + len(rejected),
            position,
        )

    def _records(self) -> Iterator[dict[str, Any]]:
        rest = b""
        for block in Blocks(self._path, 1 << 18):
            *lines, rest = (rest + block).split(b"\n")
            for raw in lines:
                record, _ = _parsed(raw)
                if record is not None:
                    yield record
        record, _ = _parsed(rest)
        if record is not None:
            yield record


def resolve(value: Any, column: str) -> Path_ | None:
    """Return the steps to a column's value in a record, None when the record does not have it."""
    if _has(value, column):
        return (column,)
    at = column.rfind(".")
    while at > 0:
        head = column[:at]
        if _has(value, head):
            below = resolve(dig(value, (head,)), column[at + 1 :])
            if below is not None:
                return (head, *below)
        at = column.rfind(".", 0, at)
    return None


def _has(value: Any, step: str) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and step.isdigit() and int(step) < len(value)


def dig(value: Any, steps: Path_) -> Any:
    """Return the value at the end of some steps, None where they lead nowhere."""
    for s in steps:
        if isinstance(value, dict):
            value = value.get(s)
        elif isinstance(value, list) and s.isdigit() and int(s) < len(value):
            value = value[int(s)]
        else:
            return None
    return value


def arrow_of(values: list[Any]) -> pa.Array:
    """Return JSON values as an Arrow array of one type; a mixture becomes texts, or lists of texts."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        pass
    if any(isinstance(v, list) for v in values):
        lists = [None if v is None else [_written(i) for i in (v if isinstance(v, list) else [v])] for v in values]
        return pa.array(lists, pa.large_list(pa.large_string()))
    return pa.array([_written(v) for v in values], pa.large_string())


def _written(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _leaf_measures(rows: list[dict[str, float]], m: Melted) -> list[Measure]:
    before = f"{m.column}." if m.column else ""
    names = sorted({name for row in rows for name in row if m.leaf(before + name) is not None})
    return [Measure(name, pa.array([row.get(name) for row in rows], pa.float64()), sparse=True) for name in names]


def _numbers(value: Any, depth: int = 0) -> dict[str, float]:
    """Return every number below an object by its dotted path; lists and booleans are none."""
    found: dict[str, float] = {}
    if isinstance(value, dict) and depth < DEEPEST:
        for key, inner in value.items():
            if type(inner) in (int, float):
                found[key] = _double(inner)
            elif isinstance(inner, dict):
                found |= {f"{key}.{leaf}": number for leaf, number in _numbers(inner, depth + 1).items()}
    return found


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf")


def _paths(record: dict[str, Any], depth: int = 0) -> Iterator[str]:
    for key, inner in record.items():
        if isinstance(inner, dict) and inner and depth < DEEPEST:
            yield from (f"{key}.{p}" for p in _paths(inner, depth + 1))
        else:
            yield key


def _parsed(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        record = json.loads(raw)
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except ValueError as e:
        return None, f"not JSON: {getattr(e, 'msg', e)}"
    except RecursionError:
        return None, "not JSON: nested too deeply"
    return (record, "") if isinstance(record, dict) else (None, "not a JSON object")


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
