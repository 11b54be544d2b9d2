"""What the state is made of: row layouts, counters and the arrays that kernels receive.

Bytes per entry, index slots included: remembered id 12 + 13, impression 56 + 13, interaction 70 + 13 when it waits,
user 24 + 13, user in an experiment 128 (two lines of a cache) + the assignment's event_id, 16 if it is a UUID (64 more
with declared metrics, 12 with experiments under as_of, which have a row for each assignment). Where interactions name
items, an impression has 32 more and an interaction 16 more (`items`).
"""

from typing import Any

import numpy as np

from stream.contracts.limits import MAX_ARMS, MAX_METRICS, MAX_PHASES

PANE_MS = 10_000  # panes of slice `all`
SLICE_PANE_MS = 60_000  # panes of all other slices
CHUNK_MS = 300_000  # panes published together to the second agent
ROLLING_MS = 86_400_000  # the longest rolling window
DAY_MS = 86_400_000
ALWAYS = np.int64(1) << 62  # later than any time
QUIET_MS = 600_000  # an open pane untouched for so long is closed
MAX_DIMENSIONS = 7

USER = np.dtype([("assigned", "i4"), ("impression", "u4"), ("interaction", "u4")])
# hour: 2 * the hour of the Kafka record time, 1 more while the user has no assignment
IMPRESSION = np.dtype(
    [("at", "i8"), ("item", "u8"), ("user", "i4"), ("combo", "i4"), ("previous", "u4"),
     ("clicks", "i4"), ("conversions", "i4"), ("hour", "i4"), ("latency", "i4")]
)  # fmt: skip
INTERACTION = np.dtype(
    [("at", "i8"), ("value", "i8"), ("shown_at", "i8"), ("user", "i4"), ("combo", "i4"), ("impression", "u4"),
     ("previous", "u4"), ("watch", "u4"), ("hour", "i4"), ("currency", "i2"), ("word", "i2"), ("kind", "i1"),
     ("credit", "i1"), ("refers", "i1"), ("outside", "i1"), ("watches", "i2")]
)  # fmt: skip
NODE = np.dtype([("at", "i8"), ("left", "u4"), ("right", "u4")])  # of a tree, beside a row of a ring
# One row per user and experiment; under as_of one per assignment, newest first, sums in the `own` row of the arm.
# early_*: of interactions before exposed_at, the user's first impression. days, exposed_days: bit n, active on the
# n-th UTC date after the one of the assignment or of the first impression. id_pos, id_len: see event_ids.
ASSIGNED = np.dtype(
    # One line of a cache: all that an impression reads and changes.
    [("at", "i8"), ("exposed_at", "i8"), ("latency", "i8"), ("impressions", "i4"), ("clicked", "i4"),
     ("converted", "i4"), ("timed", "i4"), ("touched", "i4"), ("next", "i4"), ("own", "i4"), ("slice", "i4"),
     ("experiment", "i2"), ("id_len", "i2"), ("arm", "i1"), ("phase", "i1"), ("flags", "i1"), ("unused", "i1"),
     # And another one.
     ("revenue", "i8"), ("early_revenue", "i8"), ("pre_value", "i8"), ("id_pos", "u4"), ("clicks", "i4"),
     ("conversions", "i4"), ("early_clicks", "i4"), ("early_conversions", "i4"), ("mixed_events", "i4"),
     ("before", "i4"), ("foreign", "i4"), ("days", "u4"), ("exposed_days", "u4")]
)  # fmt: skip
# What an impression and its credit change in a row of `assigned`, as it was before the step.
SEEN = np.dtype(
    [("latency", "i8"), ("impressions", "i4"), ("clicked", "i4"), ("converted", "i4"), ("timed", "i4"), ("row", "i4"),
     ("unused", "i4")]
)  # fmt: skip
TURN = np.dtype([("jump", "i4"), ("depth", "i4"), ("ring", "i4")])  # of a row under as_of, see turns
EXPOSURE = np.dtype([("at", "i8"), ("user", "i8")])
DECLARED = MAX_METRICS  # quantities of declared metrics, by experiment

MIXED, EXCLUDED, EARLIEST = 1, 2, 4  # flags of an ASSIGNED row
EXCLUDE, FIRST, AS_OF = 0, 1, 2  # policies
CLICK, CONVERSION = 1, 2  # bits of a kind; 0 is another word
BY_NOTHING, BY_IMPRESSION, BY_ITEM = 0, 1, 2
# Credit.* of contracts.reasons, in the order of the ledger's columns
ATTRIBUTED, WAITING, NO_REFERENCE, UNKNOWN_IMPRESSION, OTHER_USER, OUTSIDE_WINDOW = range(6)
# status of a row of a batch beyond decoding: below 0 not rejected and not counted
LATE, DUPLICATE, OUTSIDE = -1, -2, -3

# columns of `troubles`
T_LATE, T_DUPLICATE, T_REJECTED, T_ORPHANED = range(4)
TROUBLES = 4

# columns of the ledger's table
(L_CONSUMED, L_COUNTED, L_DUPLICATE, L_LATE, L_OUTSIDE, L_REJECTED, L_CREDIT) = range(7)
L_MISROUTED = L_CREDIT + 6
LEDGER_COLUMNS = L_MISROUTED + 1

# counters in `m`
(USERS, USERS_USED, IDS_BASE, IDS, IDS_USED, IMP_BASE, IMPS, IMPS_USED, ITEMS_ON, ITEMS_USED, INT_BASE, INTS,
 WATCH_USED, ITEM_WATCHES, ASG, ASG_FREE, ARENA, SCRATCH, TOUCHED, UNKNOWN_TROUBLED, LEDGER, WINDOW,
 COMBOS, NEED_CELLS, NEED_HOURS, NEED_TOUCHED, UNKNOWN_TROUBLES) = range(27)  # fmt: skip
# The last one is the first of TROUBLES counters: of users without a known arm.
SEEN_ROWS = UNKNOWN_TROUBLES + TROUBLES


# The arrays of the state as kernels see them: name -> (dtype of a row, shape of a row).
PAIR = (2,)
FIELDS: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    "m": (np.dtype("i8"), ()),
    "user_keys": (np.dtype("u8"), ()),
    "user_tags": (np.dtype("u4"), ()),  # upper halves of the first halves of ids, for rebuilding the slots
    "user_slots": (np.dtype("u8"), ()),
    "users": (USER, ()),
    "id_keys": (np.dtype("u8"), ()),
    "id_tags": (np.dtype("u4"), ()),
    "id_slots": (np.dtype("u8"), ()),
    "imp_keys": (np.dtype("u8"), ()),
    "imp_tags": (np.dtype("u4"), ()),
    "imp_slots": (np.dtype("u8"), ()),
    "imps": (IMPRESSION, ()),
    "imp_marks": (np.dtype("u1"), ()),  # by block, see marks
    "imp_nodes": (NODE, ()),  # 0 rows until an interaction names an item, as int_nodes
    "item_slots": (np.dtype("u8"), ()),
    "int_keys": (np.dtype("u8"), ()),
    "int_tags": (np.dtype("u4"), ()),
    "watch_slots": (np.dtype("u8"), ()),
    "ints": (INTERACTION, ()),
    "int_marks": (np.dtype("u1"), ()),
    "int_nodes": (NODE, ()),
    "assigned": (ASSIGNED, ()),
    "assigned_marks": (np.dtype("u1"), ()),
    "turns": (TURN, ()),  # beside `assigned`; 0 rows: no experiment is under as_of
    "arena": (np.dtype("u1"), ()),  # event_ids of assignments
    "scratch_keys": (np.dtype("i8"), PAIR),  # arm << 32 | combination, pane
    "scratch_slots": (np.dtype("i4"), ()),
    "scratch": (np.dtype("i8"), (6,)),  # in the order of outputs.COUNTS
    "declared": (
        np.dtype("i8"),
        (2 * DECLARED,),
    ),  # beside `assigned`: sums, then the early ones; 0 rows: none declared
    "declared_marks": (np.dtype("u1"), ()),
    "before": (ASSIGNED, ()),  # rows of `assigned` as they were before the step
    "before_declared": (np.dtype("i8"), (2 * DECLARED,)),
    "before_row": (np.dtype("i4"), ()),  # where they stand
    "seen": (SEEN, ()),  # of those rows of which only that changed
    "exposing": (
        EXPOSURE,
        (),
    ),  # beside `before`: the first impression that came in the step, if before all known ones
    "combo_keys": (np.dtype("i8"), PAIR),  # eight codes of 16 bits
    "combo_slots": (np.dtype("i4"), ()),
    "combo_surface": (np.dtype("i4"), ()),
    "ledger_keys": (np.dtype("i8"), PAIR),  # topic, hour
    "ledger_slots": (np.dtype("i4"), ()),
    "ledger": (np.dtype("i8"), (LEDGER_COLUMNS,)),
    "ledger_touched": (np.dtype("i8"), ()),  # step that touched the row last, -1 in this step
    "ledger_fragment": (np.dtype("i8"), ()),  # step that opened the row
    "policy": (np.dtype("i1"), ()),  # by experiment, as all below
    "frozen": (np.dtype("i1"), ()),
    "ends_at": (np.dtype("i8"), ()),
    "currency": (np.dtype("i4"), ()),
    "has_surfaces": (np.dtype("i1"), ()),
    "surfaces": (np.dtype("i1"), (1024,)),
    "phases": (np.dtype("i8"), (MAX_PHASES,)),  # when they start; the first one always
    "cap": (np.dtype("i8"), ()),  # of a user's revenue
    "foretold": (np.dtype("i1"), ()),  # what pre_value foretells, see moments
    "feeds": (
        np.dtype("u1"),
        (1024,),
    ),  # by word: bits 0-3, the declared quantities it counts for; 4-7, adds value to
    "feeds_from": (
        np.dtype("i8"),
        (DECLARED,),
    ),  # since when each declared quantity counts, by the event's time
    "troubles": (np.dtype("i8"), (MAX_ARMS * TROUBLES,)),  # by arm: events that count for nothing
    "troubled": (np.dtype("i1"), ()),  # whether `troubles` changed in this step
    "declaring": (np.dtype("i1"), ()),  # whether a quantity was declared since the last step
}
