"""The loop that decodes Avro data into columns: one interpreter of compiled programs, run row by row over the bytes.

A program is a run of instructions of four int64 (operation, a, b, c) in one array that all writers of a decoder share,
followed by tables; `fluvial.schemas.program` writes it. Nothing here allocates per row or trusts a length.
"""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import numpy as np

from fluvial.compiling import njit
from fluvial.records import F64, I64, U8, Mask

WIDTH = 4
MAX_LOOPS = 16

(
    END,
    LONG,
    BOOLEAN,
    DOUBLE,
    FLOAT,
    LONG_AS_DOUBLE,
    SPAN,
    FIXED,
    ENUM,
    NULL_LONG,
    NULL_DOUBLE,
    NULL_SPAN,
    CONST_LONG,
    CONST_DOUBLE,
    CONST_SPAN,
    OPTION,
    UNION,
    JUMP,
    FAIL,
    LOOP,
    NEXT,
    ITEM_SPAN,
    ITEM_ENUM,
    ITEM_DOUBLE,
    ITEM_FLOAT,
    ITEM_LONG_AS_DOUBLE,
    ITEM_CONST_SPAN,
    ITEM_CONST_DOUBLE,
    SKIP_VARINT,
    SKIP_SPAN,
    SKIP_ENUM,
    SKIP,
) = range(32)

(
    OK,
    TRUNCATED,
    VARINT_TOO_LONG,
    BAD_LENGTH,
    BAD_UNION_INDEX,
    BAD_ENUM,
    UNKNOWN_SYMBOL,
    INVALID_UTF8,
    TOO_MANY_ITEMS,
    TRAILING_BYTES,
    BAD_BLOCK_SIZE,
    NULL_VALUE,
    SCHEMA_MISMATCH,
) = range(13)

NO_VALUE, NO_MAGIC, TOO_SHORT = -1, -2, -3
FRAME = 5


@njit(cache=True, nogil=True)
def frame_ids(buffer: U8, start: I64, length: I64) -> I64:
    """Return the schema id of each framed value: int64[n], or NO_VALUE (null), NO_MAGIC, TOO_SHORT."""
    ids = np.empty(len(start), np.int64)
    for row in range(len(start)):
        a = start[row]
        if length[row] < 0:
            ids[row] = NO_VALUE
        elif length[row] < FRAME or a < 0 or a + length[row] > len(buffer):
            ids[row] = TOO_SHORT
        elif buffer[a] != 0:
            ids[row] = NO_MAGIC
        else:
            high = (np.int64(buffer[a + 1]) << 24) | (np.int64(buffer[a + 2]) << 16)
            ids[row] = high | (np.int64(buffer[a + 3]) << 8) | np.int64(buffer[a + 4])
    return ids


@njit(nogil=True, inline="never")
def _long_varint(buffer, at, end):
    value = np.int64(0)
    shift = 0
    while at < end:
        byte = np.int64(buffer[np.uint64(at)])
        at += 1
        if shift == 63 and byte > 1:
            return np.int64(0), np.int64(-VARINT_TOO_LONG)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return ((value >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), at
        shift += 7
    return np.int64(0), np.int64(-TRUNCATED)


@njit(nogil=True)
def _varint(buffer, at, end):
    """Return a zig-zag varint and the position after it; a negative position is an error code's negative."""
    if at < end:
        byte = np.int64(buffer[np.uint64(at)])
        if byte < 0x80:
            return (byte >> 1) ^ -(byte & 1), at + 1
    return _long_varint(buffer, at, end)


@njit(nogil=True)
def _u64(buffer, at):
    low = (
        np.uint64(buffer[np.uint64(at)])
        | (np.uint64(buffer[np.uint64(at + 1)]) << np.uint64(8))
        | (np.uint64(buffer[np.uint64(at + 2)]) << np.uint64(16))
        | (np.uint64(buffer[np.uint64(at + 3)]) << np.uint64(24))
    )
    high = (
        np.uint64(buffer[np.uint64(at + 4)])
        | (np.uint64(buffer[np.uint64(at + 5)]) << np.uint64(8))
        | (np.uint64(buffer[np.uint64(at + 6)]) << np.uint64(16))
        | (np.uint64(buffer[np.uint64(at + 7)]) << np.uint64(24))
    )
    return low | (high << np.uint64(32))


@njit(nogil=True)
def _double(buffer, at):
    return np.uint64(_u64(buffer, at)).view(np.float64)


@njit(nogil=True)
def _float(buffer, at):
    word = (
        np.uint32(buffer[np.uint64(at)])
        | (np.uint32(buffer[np.uint64(at + 1)]) << np.uint32(8))
        | (np.uint32(buffer[np.uint64(at + 2)]) << np.uint32(16))
        | (np.uint32(buffer[np.uint64(at + 3)]) << np.uint32(24))
    )
    return np.float64(np.uint32(word).view(np.float32))


@njit(nogil=True)
def _is_ascii(buffer, at, end):
    seen = np.uint64(0)
    while end - at >= 8:
        seen |= _u64(buffer, at)
        at += 8
    if at < end:
        if at + 8 <= len(buffer):
            # The string's last bytes and some that follow, which are shifted out.
            seen |= _u64(buffer, at) << np.uint64(8 * (8 - (end - at)))
        else:
            for i in range(at, end):
                seen |= np.uint64(buffer[np.uint64(i)])
    return seen & np.uint64(0x8080808080808080) == np.uint64(0)


@njit(nogil=True)
def _is_utf8(buffer, at, end):
    """Whether bytes are UTF-8 as Unicode defines it (table 3-7): no surrogates, no overlong forms."""
    while at < end:
        lead = buffer[np.uint64(at)]
        if lead < 0x80:
            at += 1
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 if lead < 0xE0 else (2 if lead < 0xF0 else 3)
        if at + more >= end:
            return False
        second = buffer[np.uint64(at + 1)]
        least = 0xA0 if lead == 0xE0 else (0x90 if lead == 0xF0 else 0x80)
        most = 0x9F if lead == 0xED else (0x8F if lead == 0xF4 else 0xBF)
        if second < least or second > most:
            return False
        for i in range(2, more + 1):
            if buffer[np.uint64(at + i)] & 0xC0 != 0x80:
                return False
        at += more + 1
    return True


@njit(cache=True, nogil=True)
def decode(
    buffer: U8,
    start: I64,
    length: I64,
    entry: I64,
    code: I64,
    first: int,
    constants_at: I64,
    extra_items: int,
    longs: I64,
    doubles: F64,
    span_start: I64,
    span_length: I64,
    long_valid: Mask,
    double_valid: Mask,
    string_offsets: I64,
    string_start: I64,
    string_length: I64,
    double_offsets: I64,
    double_items: F64,
    error: U8,
    error_at: I64,
) -> int:
    """Decode rows ``first``… and return the row it stopped before: n, or the one whose list items might not fit.

    ``entry[row]`` is where the row's program begins (−1: leave the row empty), ``start``/``length`` its Avro datum
    without frame. Columns are [slot, n]; list offsets [slot, n + 1], list items [slot, room]. ``constants_at[slot]`` is
    where the constants begin in the buffer of span column ``slot`` (then of string list ``slot − spans``).
    ``error[row]`` gets the error code, ``error_at[row]`` the instruction.
    """
    n = len(start)
    n_spans = span_start.shape[0]
    n_strings = string_offsets.shape[0]
    n_doubles = double_offsets.shape[0]
    remaining = np.zeros(MAX_LOOPS, np.int64)
    block_end = np.zeros(MAX_LOOPS, np.int64)
    for row in range(first, n):
        for s in range(n_strings):
            used = string_offsets[s, row]
            if used + length[row] + extra_items > string_start.shape[1]:
                return row
            string_offsets[s, row + 1] = used
        for s in range(n_doubles):
            used = double_offsets[s, row]
            if used + length[row] + extra_items > double_items.shape[1]:
                return row
            double_offsets[s, row + 1] = used
        pc = entry[row]
        at = start[row]
        end = at + length[row]
        loops = -1
        failed = OK
        if pc >= 0 and (at < 0 or end > len(buffer)):
            failed = TRUNCATED
            pc = -1
        while pc >= 0:
            op = code[pc]
            a = code[pc + 1]
            if op == LONG:
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                longs[a, row] = value
            elif op == SPAN:
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if value < 0 or value > end - at:
                    failed = BAD_LENGTH if value < 0 else TRUNCATED
                    break
                stop = at + value
                if code[pc + 2] != 0 and not _is_ascii(buffer, at, stop) and not _is_utf8(buffer, at, stop):
                    failed = INVALID_UTF8
                    break
                span_start[a, row] = at
                span_length[a, row] = value
                at += value
            elif op == DOUBLE:
                if end - at < 8:
                    failed = TRUNCATED
                    break
                doubles[a, row] = _double(buffer, at)
                at += 8
            elif op == OPTION:
                if at < end and buffer[np.uint64(at)] == 2 - 2 * a:
                    at += 1
                    pc += WIDTH
                    continue
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if value == a:
                    pc = code[pc + 2]
                    continue
                if value != 1 - a:
                    failed = BAD_UNION_INDEX
                    break
            elif op == NULL_LONG:
                longs[a, row] = 0
                long_valid[a, row] = False
            elif op == NULL_DOUBLE:
                doubles[a, row] = 0.0
                double_valid[a, row] = False
            elif op == NULL_SPAN:
                span_start[a, row] = 0
                span_length[a, row] = -1
            elif op == JUMP:
                pc = a
                continue
            elif op == END:
                if at != end:
                    failed = TRAILING_BYTES
                break
            elif op in (ENUM, ITEM_ENUM):
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if value < 0 or value >= code[pc + 3]:
                    failed = BAD_ENUM
                    break
                symbol = code[pc + 2] + 2 * value
                if code[symbol + 1] < 0:
                    failed = UNKNOWN_SYMBOL
                    break
                if op == ENUM:
                    span_start[a, row] = constants_at[a] + code[symbol]
                    span_length[a, row] = code[symbol + 1]
                else:
                    k = string_offsets[a, row + 1]
                    string_start[a, k] = constants_at[n_spans + a] + code[symbol]
                    string_length[a, k] = code[symbol + 1]
                    string_offsets[a, row + 1] = k + 1
            elif op == LOOP:
                loops += 1
                remaining[loops] = 0
                block_end[loops] = -1
            elif op == NEXT:
                if remaining[loops] == 0:
                    if block_end[loops] >= 0 and block_end[loops] != at:
                        failed = BAD_BLOCK_SIZE
                        break
                    block_end[loops] = -1
                    value, at = _varint(buffer, at, end)
                    if at < 0:
                        failed = -at
                        break
                    if value < 0:
                        value = -value
                        size, at = _varint(buffer, at, end)
                        if at < 0:
                            failed = -at
                            break
                        if size < 0 or size > end - at:
                            failed = BAD_BLOCK_SIZE
                            break
                        block_end[loops] = at + size
                    if value == 0:
                        loops -= 1
                        pc = a
                        continue
                    if value < 0 or value > (end - at) // code[pc + 2]:
                        failed = TOO_MANY_ITEMS
                        break
                    remaining[loops] = value
                remaining[loops] -= 1
            elif op == ITEM_SPAN:
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if value < 0 or value > end - at:
                    failed = BAD_LENGTH if value < 0 else TRUNCATED
                    break
                stop = at + value
                if code[pc + 2] != 0 and not _is_ascii(buffer, at, stop) and not _is_utf8(buffer, at, stop):
                    failed = INVALID_UTF8
                    break
                k = string_offsets[a, row + 1]
                string_start[a, k] = at
                string_length[a, k] = value
                string_offsets[a, row + 1] = k + 1
                at += value
            elif op in (ITEM_DOUBLE, ITEM_FLOAT, ITEM_LONG_AS_DOUBLE, ITEM_CONST_DOUBLE):
                number = 0.0
                if op == ITEM_DOUBLE:
                    if end - at < 8:
                        failed = TRUNCATED
                        break
                    number = _double(buffer, at)
                    at += 8
                elif op == ITEM_FLOAT:
                    if end - at < 4:
                        failed = TRUNCATED
                        break
                    number = _float(buffer, at)
                    at += 4
                elif op == ITEM_LONG_AS_DOUBLE:
                    value, at = _varint(buffer, at, end)
                    if at < 0:
                        failed = -at
                        break
                    number = np.float64(value)
                else:
                    number = np.int64(code[pc + 2]).view(np.float64)
                k = double_offsets[a, row + 1]
                double_items[a, k] = number
                double_offsets[a, row + 1] = k + 1
            elif op == BOOLEAN:
                if at >= end:
                    failed = TRUNCATED
                    break
                longs[a, row] = 1 if buffer[np.uint64(at)] != 0 else 0
                at += 1
            elif op == FLOAT:
                if end - at < 4:
                    failed = TRUNCATED
                    break
                doubles[a, row] = _float(buffer, at)
                at += 4
            elif op == LONG_AS_DOUBLE:
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                doubles[a, row] = np.float64(value)
            elif op == FIXED:
                if end - at < code[pc + 2]:
                    failed = TRUNCATED
                    break
                span_start[a, row] = at
                span_length[a, row] = code[pc + 2]
                at += code[pc + 2]
            elif op in (SKIP_VARINT, SKIP_ENUM):
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if op == SKIP_ENUM and (value < 0 or value >= a):
                    failed = BAD_ENUM
                    break
            elif op == SKIP_SPAN:
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if value < 0 or value > end - at:
                    failed = BAD_LENGTH if value < 0 else TRUNCATED
                    break
                at += value
            elif op == SKIP:
                if end - at < a:
                    failed = TRUNCATED
                    break
                at += a
            elif op == UNION:
                value, at = _varint(buffer, at, end)
                if at < 0:
                    failed = -at
                    break
                if value < 0 or value >= a:
                    failed = BAD_UNION_INDEX
                    break
                pc = code[code[pc + 2] + value]
                continue
            elif op == CONST_LONG:
                longs[a, row] = code[pc + 2]
            elif op == CONST_DOUBLE:
                doubles[a, row] = np.int64(code[pc + 2]).view(np.float64)
            elif op == CONST_SPAN:
                span_start[a, row] = constants_at[a] + code[pc + 2]
                span_length[a, row] = code[pc + 3]
            elif op == ITEM_CONST_SPAN:
                k = string_offsets[a, row + 1]
                string_start[a, k] = constants_at[n_spans + a] + code[pc + 2]
                string_length[a, k] = code[pc + 3]
                string_offsets[a, row + 1] = k + 1
            else:
                failed = a
                break
            pc += WIDTH
        if failed != OK or entry[row] < 0:
            error[row] = failed
            error_at[row] = pc
            for s in range(longs.shape[0]):
                longs[s, row] = 0
                long_valid[s, row] = False
            for s in range(doubles.shape[0]):
                doubles[s, row] = 0.0
                double_valid[s, row] = False
            for s in range(n_spans):
                span_start[s, row] = 0
                span_length[s, row] = 0
            for s in range(n_strings):
                string_offsets[s, row + 1] = string_offsets[s, row]
            for s in range(n_doubles):
                double_offsets[s, row + 1] = double_offsets[s, row]
    return n
