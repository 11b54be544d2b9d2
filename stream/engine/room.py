"""Kernels never grow a table: before an event they ask whether all it can touch fits, and return when it does not."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.index import alive
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
    TOUCHED,
)


@njit
def held_events(t, user):
    """How many events of this user are held."""
    n = 0
    q = np.int64(t.users[user].impression)
    while alive(q, t.m[IMP_BASE], t.m[IMPS]) and t.imps[q & (t.imps.shape[0] - 1)].user == user:
        n += 1
        q = np.int64(t.imps[q & (t.imps.shape[0] - 1)].previous)
    q = np.int64(t.users[user].interaction)
    while alive(q, t.m[INT_BASE], t.m[INTS]) and t.ints[q & (t.ints.shape[0] - 1)].user == user:
        n += 1
        q = np.int64(t.ints[q & (t.ints.shape[0] - 1)].previous)
    return n


@njit
def assignments_of(t, user):
    """How many rows the user's list of assignments has."""
    n = 0
    a = np.int64(t.users[user].assigned)
    while a >= 0:
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
        and t.m[TOUCHED] + rows <= t.before.shape[0]
    )
