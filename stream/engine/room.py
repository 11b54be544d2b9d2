"""Kernels never grow a table: before an event they ask whether all it can touch fits, and return when it does not."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.contracts.limits import MAX_ARMS
from stream.engine.index import LINK_MASK, alive
from stream.engine.layout import (
    IMP_BASE,
    IMPS,
    INT_BASE,
    INTS,
    LEDGER,
    NEED_CELLS,
    NEED_HOURS,
    NEED_TOUCHED,
    SCRATCH,
    SEEN_ROWS,
    TOUCHED,
)
from stream.engine.turns import has_turns, oldest, rows_in


@njit
def held_between(t, user, start, end, old_impressions, old_interactions):
    """How many events of this user with start <= at < end are held; see credit.credit_between."""
    n = 0
    q = np.int64(t.users[user].impression)
    mask = t.imps.shape[0] - 1
    base, count = (t.m[IMP_BASE] + old_impressions) & LINK_MASK, t.m[IMPS] - old_impressions
    while alive(q, base, count) and t.imps[q & mask].user == user:
        n += 1 if start <= t.imps[q & mask].at and t.imps[q & mask].at < end else 0
        q = np.int64(t.imps[q & mask].previous)
    q = np.int64(t.users[user].interaction)
    mask = t.ints.shape[0] - 1
    base, count = (t.m[INT_BASE] + old_interactions) & LINK_MASK, t.m[INTS] - old_interactions
    while alive(q, base, count) and t.ints[q & mask].user == user:
        n += 1 if start <= t.ints[q & mask].at and t.ints[q & mask].at < end else 0
        q = np.int64(t.ints[q & mask].previous)
    return n


@njit
def assignments_of(t, user):
    """How many rows of the user's assignments an event can change at most: under as_of those with an arm's sums."""
    n = 0
    a = np.int64(t.users[user].assigned)
    while a >= 0:
        if has_turns(t, a):
            n += min(rows_in(t, a), MAX_ARMS + 1)
            a = oldest(t, a)
        else:
            n += 1
        a = np.int64(t.assigned[a].next)
    return n


@njit
def has_room(t, events, experiments, rows, restated):
    """Whether so many events in so many experiments, changed rows of users, and restatements of the ledger surely fit.

    If not, the counters say what is needed: the shell makes room and calls again from the same row.
    """
    cells = events * max(experiments, 1)
    t.m[NEED_CELLS] = cells
    t.m[NEED_HOURS] = restated
    t.m[NEED_TOUCHED] = rows
    return (
        t.m[SCRATCH] + cells <= t.scratch_keys.shape[0]
        and t.m[LEDGER] + restated <= t.ledger_keys.shape[0]
        and t.m[TOUCHED] + t.m[SEEN_ROWS] + rows <= t.before.shape[0]
    )
