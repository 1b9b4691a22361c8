"""The loop that finds the rows of CSV bytes, by RFC 4180 as Arrow's parser understands it."""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import numpy as np

from fluvial.compiling import njit
from fluvial.records import I64, U8

UNCLOSED = -1
_QUOTE, _LF, _CR = 34, 10, 13


@njit(cache=True, nogil=True)
def split_rows(data: U8, delimiter: int, final: bool, longest: int) -> tuple[I64, I64, I64, I64, int, int]:
    """Return (start, end, fields, line) of every row, where the next one begins, and how many lines are behind that.

    A row is ``data[start:end]`` without its line end, ``line`` (from 0) the one it begins in; blank lines are no rows.
    A quote that is not closed within ``longest`` bytes (or at the end of the file, when ``final``) makes the line it is
    in a row of `UNCLOSED` fields, and the next line is read as a new row. Without ``final`` the last row is left for
    later unless its end is seen.
    """
    n = len(data)
    capacity = 1
    for i in range(n):
        if data[i] == _LF or data[i] == _CR:
            capacity += 1
    start, end = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    fields, line = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    rows, at, lines = 0, 0, 0
    while at < n:
        if data[at] == _CR and at + 1 == n and not final:
            break
        if data[at] == _LF or data[at] == _CR:
            crlf = data[at] == _CR and at + 1 < n and data[at + 1] == _LF
            at += 2 if crlf else 1
            lines += 1
            continue
        begin, count, inner = at, 1, 0
        quoted, fresh, closed, broken = False, True, False, False
        while at < n:
            c = data[at]
            if quoted:
                if c == _QUOTE:
                    if at + 1 < n and data[at + 1] == _QUOTE:
                        at += 1
                    elif at + 1 == n and not final:
                        break
                    else:
                        quoted = False
                elif c == _LF:
                    inner += 1
                    if at - begin > longest:
                        broken = True
                        break
            elif c == _QUOTE and fresh:
                quoted, fresh = True, False
            elif c == delimiter:
                count += 1
                fresh = True
            elif c in (_LF, _CR):
                closed = c == _LF or at + 1 < n or final
                break
            else:
                fresh = False
            at += 1
        if broken or (final and quoted and not closed):
            at = begin
            while at < n and data[at] != _LF:
                at += 1
            count, inner, closed = UNCLOSED, 0, True
        if not closed and not final:
            return start[:rows], end[:rows], fields[:rows], line[:rows], begin, lines
        start[rows], fields[rows], line[rows] = begin, count, lines
        end[rows] = at - 1 if count == UNCLOSED and at > begin and data[at - 1] == _CR else at
        rows += 1
        lines += inner
        if at < n:
            crlf = data[at] == _CR and at + 1 < n and data[at + 1] == _LF
            at += 2 if crlf else 1
            lines += 1
    return start[:rows], end[:rows], fields[:rows], line[:rows], at, lines
