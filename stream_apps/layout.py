"""The columns of the window engine's arrays: what each place of each row holds."""

NEG = -(1 << 62)
EVENT, PARTITION_TICK, KEYED_TICK = 0, 1, 2
BY_KEY, BY_PARTITION, REKEYED = 0, 1, 2
ROOM_OK, ROOM_ROWS, ROOM_WINDOWS, ROOM_IDS, ROOM_ARENA, ROOM_ENDS = 0, 1, 2, 3, 4, 5

# cfg, constants of a pipeline
SIZE, HOP, LATENESS, IDLE, EARLY, MODE, HAS_VALUE, QUANTILES, DISTINCT, TOP, IDENTITY = range(11)
N_CFG = 11
# st, scalars that change
(
    P,
    NEED,
    N_FREE,
    N_IDS,
    N_SPARE,
    OLDEST,
    NEWEST,
    N_LATE,
    N_DUP,
    N_AGG,
    CLOSED,
    N_ENDS,
    RESUME,
    CALL,
    N_OUT,
    N_LATE_OUT,
    N_TICKS,
    ARENA_USED,
) = range(18)
N_ST = 18
SCRATCH = (NEED, CALL, N_OUT, N_LATE_OUT)  # of one call of the kernel, no part of a state
# ki, per key
K_TIME, K_HEARD, K_CLOSED, K_HEAD, K_PREV, K_NEXT, K_CURRENT, K_SIBLING = range(8)
N_KI = 8
UNKNOWN = -2  # K_SIBLING of a key of which no event was seen yet
# wi, wf, per window
(
    W_KEY, W_START, W_NEXT, W_COUNT, W_DUP, W_EARLY, W_FIRST_T, W_LAST_T, W_OUT,
    W_IDS, W_IDS_CLASS, W_IDS_COUNT, W_AUX, W_AUX_CLASS, W_AUX_COUNT,
) = range(15)  # fmt: skip
N_WI = 16  # a whole number of cache lines
F_SUM, F_MIN, F_MAX, F_FIRST, F_LAST, F_V1, F_S1, F_S2 = range(8)
N_WF = 8
# oi, of, per emitted row
O_KEY, O_START, O_END, O_COUNT, O_DUP, O_FINAL, O_OFFSET, O_DISTINCT, O_SLOT = range(9)
N_OI = 9
V_SUM, V_MEAN, V_MIN, V_MAX, V_FIRST, V_LAST, V_STDDEV, V_P50, V_P95, V_P99 = range(10)
N_OF = 10
# kinds of aux entries: (kind << 56 | what, value)
SKETCH, REGISTER, ITEM = 0, 1, 2
# the arena's regions: 2^class entries; an entry of identities is (a, b), empty (NEG, NEG); an aux entry's empty is −1
FIRST_CLASS, N_CLASSES = 2, 48
