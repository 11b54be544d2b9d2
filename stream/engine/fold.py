"""The end of a step: the changes of arms and slices, gathered per combination, go into panes and totals."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.contracts.limits import MAX_PHASES
from stream.engine.assigned import ea_of, touch
from stream.engine.index import pair_find, pair_put
from stream.engine.layout import AS_OF, DAY_MS, EXCLUDED, SCRATCH, SEEN_ROWS, TOUCHED
from stream.engine.marks import mark_assigned, prefetch_assigned, prefetch_seen
from stream.engine.moments import MOMENTS, add_change, add_shown, is_short, quantities
from stream.engine.primitives import U64

AHEAD = 8
NO_ROW = np.int64(1) << 40
RETENTION_DAYS = (1, 7, 30)
_RETAINED = np.uint32(1 << 1 | 1 << 7 | 1 << 30)
CODES = 1024  # codes of a dimension: value = 1 + dimension * CODES + code, 0 is `all`


@njit
def code_in(a, b, d):
    """The d-th of the eight codes packed in a combination."""
    return (a >> (16 * d)) & 0xFFFF if d < 4 else (b >> (16 * (d - 4))) & 0xFFFF


@njit
def open_row(slots, keys, count, a, b):
    """(row of the pair, whether it is new)."""
    r = pair_find(slots, keys, a, b)
    if r >= 0:
        return r, False
    pair_put(slots, keys, count, r, a, b)
    return np.int64(count), True


@njit(cache=True, nogil=True)
def fold_panes(t, dimensions, panes_per_slice_pane, all_slots, all_keys, all_counts, all_marks, all_rows,
               slice_slots, slice_keys, slice_counts, slice_marks, slice_rows, step, clock):  # fmt: skip
    """Scratch into open panes: (rows of `all`, rows of slices). Marks are (fragment, last step, last clock)."""
    for i in range(t.m[SCRATCH]):
        ea = t.scratch_keys[i, 0] >> 32
        combo = t.scratch_keys[i, 0] & 0xFFFFFFFF
        pane = t.scratch_keys[i, 1]
        r, new = open_row(all_slots, all_keys, all_rows, ea, pane)
        if new:
            all_rows += 1
            all_marks[r, 0] = step
            all_counts[r, :] = 0
        all_marks[r, 1] = step
        all_marks[r, 2] = clock
        for k in range(6):
            all_counts[r, k] += t.scratch[i, k]
        for d in range(dimensions):
            value = 1 + d * CODES + code_in(t.combo_keys[combo, 0], t.combo_keys[combo, 1], d)
            r, new = open_row(
                slice_slots, slice_keys, slice_rows, (ea << 32) | value, pane // panes_per_slice_pane
            )
            if new:
                slice_rows += 1
                slice_marks[r, 0] = step
                slice_counts[r, :] = 0
            slice_marks[r, 1] = step
            slice_marks[r, 2] = clock
            for k in range(6):
                slice_counts[r, k] += t.scratch[i, k]
    t.m[SCRATCH] = 0
    t.scratch_slots[:] = 0
    return all_rows, slice_rows


@njit
def _moved_row(keys, slots, sums, rows, ea, phase, user_slice):
    r, new = open_row(slots, keys, rows, np.int64(ea) * MAX_PHASES + phase, np.int64(user_slice))
    if new:
        sums[r, :, :] = 0
    return r, rows + (1 if new else 0)


# Without numba's reference counts: counting is a locked instruction, which waits for all that is on its way to memory.
@njit(cache=True, nogil=True, _nrt=False)
def fold_users(
    t, start, vectors, slots, keys, sums, rows, cohort_slots, cohort_keys, cohorts, cohort_marks, cohort_rows, step
):  # fmt: skip
    """The touched users' changes by (arm and phase, user slice): (users done, rows of sums, rows of cohorts).

    vectors: int64 (3, N), the last one zeros. Stops early when a table is nearly full; users done count rows of `seen`,
    then those of `before`, which are free afterwards.
    """
    for i in range(start, t.m[SEEN_ROWS]):
        if rows + 2 > keys.shape[0]:
            return i, rows, cohort_rows
        if i + AHEAD < t.m[SEEN_ROWS]:
            prefetch_seen(t, max(np.int64(t.seen[i + AHEAD].row), 0))
        s = t.seen[i]
        row = np.int64(s.row)
        if row < 0:  # more changed: it is among the others
            continue
        a = t.assigned[row]
        if not is_short(s, a):
            touch(t, row)
            continue
        a.touched = 0
        mark_assigned(t, row)  # here and not where it was touched: the line is at hand, and it is done once
        r, rows = _moved_row(keys, slots, sums, rows, ea_of(a), a.phase, a.slice)
        add_shown(sums, r, s, a)
    first = t.m[SEEN_ROWS]
    for i in range(max(start - first, 0), t.m[TOUCHED]):
        if rows + 2 > keys.shape[0] or cohort_rows + 16 > cohort_keys.shape[0]:
            return first + i, rows, cohort_rows
        if i + AHEAD < t.m[TOUCHED]:
            prefetch_assigned(t, np.int64(t.before_row[i + AHEAD]))
        row = np.int64(t.before_row[i])
        b = t.before[i]
        a = t.assigned[row]
        a.touched = 0
        mark_assigned(t, row)
        rows = _fold_any(t, i, vectors, slots, keys, sums, rows)
        if t.policy[a.experiment] == AS_OF or _keeps_cohorts(a, b):  # as_of: rates only
            continue
        cohort_rows = _fold_cohorts(
            a, b, row, cohort_slots, cohort_keys, cohorts, cohort_marks, cohort_rows, step
        )
    t.m[TOUCHED] = 0
    t.m[SEEN_ROWS] = 0
    return NO_ROW, rows, cohort_rows


@njit
def _fold_any(t, i, vectors, slots, keys, sums, rows):
    """Whatever the i-th touched row changed: the number of rows of sums."""
    old, new, nothing = vectors[0], vectors[1], vectors[2]
    row = np.int64(t.before_row[i])
    b = t.before[i]
    a = t.assigned[row]
    e = a.experiment
    kept = np.int64(i) if t.declared.shape[0] > row else NO_ROW
    quantities(old, b, b.own == row, t.before_declared, kept, t.cap[e], t.foretold[e])
    quantities(new, a, a.own == row, t.declared, row, t.cap[e], t.foretold[e])
    if b.experiment >= 0 and (ea_of(b) != ea_of(a) or b.phase != a.phase or b.slice != a.slice):
        r, rows = _moved_row(keys, slots, sums, rows, ea_of(b), b.phase, b.slice)
        add_change(sums, r, old, nothing)
        r, rows = _moved_row(keys, slots, sums, rows, ea_of(a), a.phase, a.slice)
        add_change(sums, r, nothing, new)
    else:
        r, rows = _moved_row(keys, slots, sums, rows, ea_of(a), a.phase, a.slice)
        add_change(sums, r, old, new)
    return rows


@njit(cache=True, nogil=True)
def begin_anew(t, start, stop):
    """Take these rows of `assigned` for new ones; room for them is the caller's duty."""
    k = 0
    for row in range(start, stop):
        if t.assigned[row].experiment >= 0:
            t.before[k].experiment = -1
            t.before_row[k] = row
            k += 1
    t.m[TOUCHED] = k


@njit
def _start_of(s, row, exposed):
    """(date from which retention counts, days active since), date -1 for who takes no part."""
    if s.experiment < 0 or s.own != row or s.flags & EXCLUDED or (exposed and s.impressions <= 0):
        return np.int64(-1), np.uint32(0)
    if exposed:
        return max(np.int64(s.exposed_at), np.int64(s.at)) // DAY_MS, s.exposed_days & _RETAINED
    return s.at // DAY_MS, s.days & _RETAINED


@njit
def _keeps_cohorts(a, b):
    """Whether nothing changed that decides about a user's cohorts: nearly always."""
    return (
        a.exposed_days == b.exposed_days
        and a.days == b.days
        and (a.impressions > 0) == (b.impressions > 0)
        and a.at == b.at
        and a.exposed_at == b.exposed_at
        and a.flags == b.flags
        and a.experiment == b.experiment
        and a.arm == b.arm
        and a.phase == b.phase
        and a.slice == b.slice
        and a.own == b.own
    )


@njit
def _fold_cohorts(a, b, row, slots, keys, cohorts, marks, rows, step):
    """Move a user between cohorts: (arm, phase, whether since exposure) and (slice, date of the start)."""
    for exposed in range(2):
        date, days = _start_of(a, row, exposed)
        old_date, old_days = _start_of(b, row, exposed)
        same = ea_of(b) == ea_of(a) and b.phase == a.phase and b.slice == a.slice
        if date == old_date and days == old_days and (same or date < 0):
            continue
        rows = _add_to_cohorts(b, old_date, old_days, exposed, slots, keys, cohorts, marks, rows, step, -1)
        rows = _add_to_cohorts(a, date, days, exposed, slots, keys, cohorts, marks, rows, step, 1)
    return rows


@njit
def _add_to_cohorts(s, date, days, exposed, slots, keys, cohorts, marks, rows, step, sign):
    if date < 0:
        return rows
    first = (ea_of(s) * MAX_PHASES + s.phase) * 2 + exposed
    for d in range(4):
        r, new = open_row(slots, keys, rows, first, (slice_value(s.slice, d) << 24) | date)
        if new:
            rows += 1
            cohorts[r, :] = 0
        marks[r] = step
        cohorts[r, 0] += sign
        for k in range(3):
            if (np.int64(days) >> RETENTION_DAYS[k]) & 1:
                cohorts[r, 1 + k] += sign
    return rows


@njit
def slice_value(user_slice, d):
    """The d-th of a user's slices: 0 `all`, then 1 + dimension * CODES + code."""
    return np.int64(0) if d == 0 else 1 + (d - 1) * CODES + ((np.int64(user_slice) >> (10 * (d - 1))) & 1023)


@njit(cache=True, nogil=True)
def fold_moved(keys, sums, moved, total_slots, total_keys, totals, marks, rows, step):
    """Changes by (arm and phase, user slice) into `all`, country, device and segment: the number of rows."""
    for f in range(moved):
        for d in range(4):
            r, new = open_row(total_slots, total_keys, rows, keys[f, 0], slice_value(keys[f, 1], d))
            if new:
                rows += 1
                totals[r, :, :] = 0
            marks[r] = step
            for k in range(len(MOMENTS)):
                low = U64(sums[f, k, 0])
                if low != U64(0) or sums[f, k, 1] != 0:
                    summed = U64(totals[r, k, 0]) + low
                    totals[r, k, 0] = np.int64(summed)
                    totals[r, k, 1] += sums[f, k, 1] + (1 if summed < low else 0)
    return rows


@njit(cache=True, nogil=True)
def keep_rows(keys, counts, marks, keep):
    """Move the rows to keep to the front, in order; returns how many."""
    k = 0
    for i in range(keep.shape[0]):
        if keep[i]:
            if i != k:
                keys[k] = keys[i]
                counts[k] = counts[i]
                marks[k] = marks[i]
            k += 1
    return k


@njit(cache=True, nogil=True)
def chunk_cells(slots, keys, counts, first_arm, arms, first_pane, panes, out):
    """Rows (arm, pane, counts...) of one experiment's panes that are open: how many."""
    n = 0
    for arm in range(first_arm, first_arm + arms):
        for pane in range(first_pane, first_pane + panes):
            r = pair_find(slots, keys, np.int64(arm), np.int64(pane))
            if r >= 0:
                out[n, 0] = arm
                out[n, 1] = pane
                for k in range(6):
                    out[n, 2 + k] = counts[r, k]
                n += 1
    return n
