"""The end of a step: the changes of arms and slices, gathered per combination, go into panes and totals."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.index import pair_find, pair_put
from stream.engine.layout import FINE, FINE_COLUMNS, SCRATCH, WIDE_COLUMNS
from stream.engine.primitives import U64, add128

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
def add_wide(sums, row, column, low, high):
    """sums[row, column] += a two-word integer."""
    old = U64(sums[row, column, 0])
    new = old + U64(low)
    sums[row, column, 0] = np.int64(new)
    sums[row, column, 1] += high + (1 if new < old else 0)


@njit(cache=True, nogil=True)
def fold_totals(t, slots, keys, sums, marks, rows, step):
    """Changes of (arm, user slice combination) into `all`, country, device and segment: the number of rows."""
    for f in range(t.m[FINE]):
        if t.fine_touched[f] == 0:
            continue
        t.fine_touched[f] = 0
        ea = t.fine_keys[f, 0]
        user_slice = t.fine_keys[f, 1]
        for d in range(4):
            value = np.int64(0) if d == 0 else 1 + (d - 1) * CODES + ((user_slice >> (10 * (d - 1))) & 1023)
            r, new = open_row(slots, keys, rows, ea, value)
            if new:
                rows += 1
                sums[r, :, :] = 0
            marks[r] = step
            for k in range(FINE_COLUMNS):
                if t.fine[f, k] != 0:
                    add128(sums, r, k, t.fine[f, k])
            for k in range(WIDE_COLUMNS):
                add_wide(sums, r, FINE_COLUMNS + k, t.wide[f, k, 0], t.wide[f, k, 1])
        t.fine[f, :] = 0
        t.wide[f, :, :] = 0
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
