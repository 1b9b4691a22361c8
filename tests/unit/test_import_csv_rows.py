"""Rows of CSV bytes: where Arrow sees them, in whatever pieces the file is read, each with its line number."""

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.producers import csv_file
from fluvial.producers.chunks import ImportFileError, Melted
from fluvial.producers.csv_file import CsvFile
from fluvial.producers.csv_rows import UNCLOSED, split_rows

LONGEST = 1 << 20
# Python's writer leaves a lone carriage return unquoted.
CELL = st.text(st.sampled_from('ab1.,"\n ü'), max_size=6)
NASTY = st.text(st.sampled_from('a,"\n\r'), max_size=60)


def rows_of(data: bytes, final: bool = True) -> list[tuple[bytes, int, int]]:
    start, end, fields, line, *_ = split_rows(np.frombuffer(data, np.uint8), ord(","), final, LONGEST)
    return [(data[a:b], int(f), int(at)) for a, b, f, at in zip(start, end, fields, line, strict=True)]


@given(st.lists(st.lists(CELL, min_size=2, max_size=4), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_what_python_writes_is_found_row_by_row(table: list[list[str]], line_end: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=line_end).writerows(table)
    found = rows_of(out.getvalue().encode())
    assert [f for _, f, _ in found] == [len(cells) for cells in table]
    assert [next(csv.reader(io.StringIO(raw.decode(), newline=""))) for raw, _, _ in found] == table


@given(NASTY)
def test_the_field_counts_are_those_of_arrows_parser(text: str) -> None:
    found = rows_of(text.encode())
    if any(f == UNCLOSED for _, f, _ in found) or not found:
        return
    seen: list[int] = []
    wanted = max(f for _, f, _ in found) + 1

    def invalid(row: arrow_csv.InvalidRow) -> str:
        seen.append(row.actual_columns)
        return "skip"

    arrow_csv.read_csv(
        pa.BufferReader(text.encode()),
        arrow_csv.ReadOptions(column_names=[str(i) for i in range(wanted)], use_threads=False),
        arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=invalid),
    )
    assert seen == [f for _, f, _ in found]


@given(NASTY, st.integers(0, 60))
def test_a_file_read_in_two_pieces_has_the_same_rows(text: str, cut: int) -> None:
    data = text.encode()
    head = np.frombuffer(data[:cut], np.uint8)
    start, end, fields, line, behind, lines = split_rows(head, ord(","), False, LONGEST)
    first = [(data[a:b], int(f), int(at)) for a, b, f, at in zip(start, end, fields, line, strict=True)]
    rest = [(raw, f, at + lines) for raw, f, at in rows_of(data[behind:])]
    assert first + rest == rows_of(data)


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    assert rows_of(b'a,b\n"x,1\nc,d\n') == [(b"a,b", 2, 0), (b'"x,1', UNCLOSED, 1), (b"c,d", 2, 2)]


def test_line_numbers_count_the_lines_inside_of_quotes_and_blank_ones() -> None:
    assert rows_of(b'a,b\n\n"x\ny",1\r\nc,d') == [(b"a,b", 2, 0), (b'"x\ny",1', 2, 2), (b"c,d", 2, 4)]


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_every_row_keeps_its_line_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, packed: bool
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", block)
    text = '\ufeffid,note,x\n1,"two\nlines",5\n2,short\n\n3,,7\r\n4,"",8\n5,"q""q",9'
    path = tmp_path / "f.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    chunks = list(CsvFile(path).chunks(["id", "note"], [Melted("x", "x")]))
    assert [v.as_py() for c in chunks for v in c.columns["id"]] == [b"1", b"3", b"4", b"5"]
    assert [v.as_py() for c in chunks for v in c.columns["note"]] == [b"two\nlines", None, b"", b'q"q']
    assert [v.as_py() for c in chunks for m in c.melted for v in m.cells] == [b"5", b"7", b"8", b"9"]
    assert [int(n) for c in chunks for n in c.line] == [2, 6, 7, 8]
    assert [c.raw(i) for c in chunks for i in range(len(c))] == ['1,"two\nlines",5', "3,,7", '4,"",8', '5,"q""q",9']
    assert [(r.line, r.reason, r.raw) for c in chunks for r in c.rejected] == [
        (4, "2 fields where the header has 3", "2,short")
    ]
    assert sum(c.lines for c in chunks) == 5
    assert chunks[-1].position == path.stat().st_size


def test_a_damaged_gzip_file_gives_what_is_readable_and_says_so(tmp_path: Path) -> None:
    text = "id\n" + "\n".join(str(i * 7919 % 100_003) for i in range(50_000))
    path = tmp_path / "f.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:-5_000])
    chunks = list(CsvFile(path).chunks(["id"], []))
    assert sum(len(c) for c in chunks) > 1_000
    assert [r.reason.partition(":")[0] for c in chunks for r in c.rejected] == [
        "the compressed file is damaged from here on"
    ]


def test_a_header_is_needed_and_names_a_column_once(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"\n\n")
    with pytest.raises(ImportFileError, match="no header line"):
        CsvFile(path)
    path.write_bytes(b"a,b,a\n")
    assert CsvFile(path).missing(["b", "c"]) == ["c"]
    with pytest.raises(ImportFileError, match="'a' twice"):
        CsvFile(path).missing(["a"])
