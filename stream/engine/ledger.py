"""The rows of the ledger and what restates them: outcomes and credits of held events change."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.index import alive, pair_find, pair_put
from stream.engine.layout import (
    IMP_BASE,
    IMPS,
    INT_BASE,
    INTS,
    L_COUNTED,
    L_CREDIT,
    L_OUTSIDE,
    LEDGER,
)
from stream.engine.marks import mark_impression_row, mark_interaction_row


@njit
def restate(t, topic, hour, column, sign):
    """Add to one column of the ledger row of a topic and hour (hours since 1970 of the Kafka record time)."""
    r = pair_find(t.ledger_slots, t.ledger_keys, np.int64(topic), np.int64(hour))
    if r < 0:
        miss = r
        r = t.m[LEDGER]
        t.m[LEDGER] = r + 1
        pair_put(t.ledger_slots, t.ledger_keys, r, miss, np.int64(topic), np.int64(hour))
        for k in range(t.ledger.shape[1]):
            t.ledger[r, k] = 0
    t.ledger[r, column] += sign
    t.ledger_touched[r] = -1  # any step: the shell sets it


@njit
def set_credit(t, link, credit):
    """Give an interaction another credit and restate the ledger."""
    p = link & (t.ints.shape[0] - 1)
    n = t.ints[p]
    if n.outside == 0 and n.credit != credit:
        restate(t, 2, n.hour, L_CREDIT + n.credit, -1)
        restate(t, 2, n.hour, L_CREDIT + credit, 1)
    mark_interaction_row(t, p)
    t.ints[p].credit = credit


@njit
def count_outside_events(t, user):
    """A user's first assignment turns the held events from `outside` into `counted`."""
    q = np.int64(t.users[user].impression)
    while alive(q, t.m[IMP_BASE], t.m[IMPS]) and t.imps[q & (t.imps.shape[0] - 1)].user == user:
        p = q & (t.imps.shape[0] - 1)
        if t.imps[p].hour & 1 != 0:
            mark_impression_row(t, p)
            t.imps[p].hour -= 1
            restate(t, 1, t.imps[p].hour >> 1, L_OUTSIDE, -1)
            restate(t, 1, t.imps[p].hour >> 1, L_COUNTED, 1)
        q = np.int64(t.imps[p].previous)
    q = np.int64(t.users[user].interaction)
    while alive(q, t.m[INT_BASE], t.m[INTS]) and t.ints[q & (t.ints.shape[0] - 1)].user == user:
        p = q & (t.ints.shape[0] - 1)
        if t.ints[p].outside != 0:
            mark_interaction_row(t, p)
            t.ints[p].outside = 0
            restate(t, 2, t.ints[p].hour, L_OUTSIDE, -1)
            restate(t, 2, t.ints[p].hour, L_COUNTED, 1)
            restate(t, 2, t.ints[p].hour, L_CREDIT + t.ints[p].credit, 1)
        q = np.int64(t.ints[p].previous)
