"""Rows of users in experiments: which arm they name, and how they are kept as they were before the step."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.contracts.limits import MAX_ARMS
from stream.engine.layout import ALWAYS, DECLARED, SEEN_ROWS, TOUCHED


@njit
def ea_of(s):
    """The number of a row's arm among the arms of all experiments."""
    return np.int64(s.experiment) * MAX_ARMS + np.int64(s.arm)


@njit
def touch(t, row):
    """Keep a user's row as it was before the step; room for it is the caller's duty."""
    seen = np.int64(t.assigned[row].touched)
    if seen <= 0:
        k = t.m[TOUCHED]
        t.before[k] = t.assigned[row]
        t.before_row[k] = row
        if seen < 0:
            s = t.seen[-seen - 1]
            b = t.before[k]
            b.impressions = s.impressions
            b.clicked = s.clicked
            b.converted = s.converted
            b.timed = s.timed
            b.latency = s.latency
            s.row = -1
        if t.declared.shape[0] > row:
            for d in range(2 * DECLARED):
                t.before_declared[k, d] = t.declared[row, d]
        t.exposing[k].at = ALWAYS
        t.m[TOUCHED] = k + 1
        t.assigned[row].touched = k + 1


@njit
def touch_seen(t, row):
    """The same when an impression and its credit are all that changes now, with less to keep: nearly always."""
    a = t.assigned[row]
    if a.touched != 0:
        return
    if a.impressions <= 0 or t.declared.shape[0] > row:
        touch(t, row)
        return
    k = t.m[SEEN_ROWS]
    s = t.seen[k]
    s.latency = a.latency
    s.impressions = a.impressions
    s.clicked = a.clicked
    s.converted = a.converted
    s.timed = a.timed
    s.row = row
    t.m[SEEN_ROWS] = k + 1
    a.touched = -1 - k


@njit
def touch_new(t, row):
    """The same for a row that was free."""
    k = t.m[TOUCHED]
    t.before[k].experiment = -1
    t.before_row[k] = row
    t.exposing[k].at = ALWAYS
    t.m[TOUCHED] = k + 1
    t.assigned[row].touched = k + 1
