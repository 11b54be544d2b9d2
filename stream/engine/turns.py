"""A user's turns in an experiment under as_of: the row in force at a time is found in logarithmic steps.

The rows of a group (one user and experiment) stand newest first in the user's list. Each knows a row further back
beside the next one (jumps of skew-binary lengths; Myers, An applicative random-access stack, 1983), and the rows that
hold the sums of an arm, which are few, know each other. What is here follows from the list and is not exported.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.assigned import ea_of
from stream.engine.layout import AS_OF, ASG_FREE
from stream.engine.marks import mark_assigned

PRUNED_EVERY = 32  # rows that a group grows by, it is looked whether some can go


@njit
def has_turns(t, row):
    """Whether a row belongs to an experiment under as_of."""
    return t.turns.shape[0] > 0 and t.policy[t.assigned[row].experiment] == AS_OF


@njit
def rows_in(t, start):
    """How many rows a group has."""
    return np.int64(t.turns[start].depth) + 1


@njit
def oldest(t, start):
    """The last row of a group's list."""
    a = start
    while t.turns[a].depth > 0:
        a = np.int64(t.turns[a].jump)
    return a


@njit
def in_force(t, start, at):
    """The row of a group that is in force at a time, or -1."""
    a = start
    while t.assigned[a].at > at:
        if t.turns[a].depth == 0:
            return np.int64(-1)
        j = np.int64(t.turns[a].jump)
        a = j if t.assigned[j].at > at else np.int64(t.assigned[a].next)
    return a


@njit
def index_row(t, row, older):
    """A row whose `next` is `older` (-1: it is the group's oldest) learns its depth and its jump."""
    if older < 0:
        t.turns[row].depth = 0
        t.turns[row].jump = row
        return
    j = np.int64(t.turns[older].jump)
    k = np.int64(t.turns[j].jump)
    t.turns[row].depth = t.turns[older].depth + 1
    even = t.turns[older].depth - t.turns[j].depth == t.turns[j].depth - t.turns[k].depth
    t.turns[row].jump = k if even else older


@njit
def index_group(t, start, until):
    """Index a group's rows from `start` down to, and without, `until` (-1: all of them), which is indexed already."""
    e = t.assigned[start].experiment
    n = 0
    a = start
    while a >= 0 and a != until and t.assigned[a].experiment == e:
        n += 1
        a = np.int64(t.assigned[a].next)
    path = np.empty(n, np.int64)
    a = start
    for k in range(n):
        path[k] = a
        a = np.int64(t.assigned[a].next)
    older = until
    for k in range(n - 1, -1, -1):
        index_row(t, path[k], older)
        older = path[k]


@njit
def join_ring(t, row, other):
    """A row that holds an arm's sums becomes known to those of the other arms; other: one of them, or -1."""
    t.turns[row].ring = row if other < 0 else t.turns[other].ring
    if other >= 0:
        t.turns[other].ring = row


@njit
def own_row(t, start, ea):
    """The row with an arm's sums in a group, or -1."""
    first = np.int64(t.assigned[start].own)
    a = first
    while ea_of(t.assigned[a]) != ea:
        a = np.int64(t.turns[a].ring)
        if a == first:
            return np.int64(-1)
    return a


@njit
def prune(t, start, settled):
    """Now and then free repeated assignments of an arm that are over: no event held or to come is before `settled`.

    One that follows another of its arm matters only if one of a third arm should turn out to have come between the two,
    for the events until the next one: there are none any more.
    """
    n = rows_in(t, start)
    if n % PRUNED_EVERY != 0:
        return
    last = in_force(t, start, settled)
    if last < 0 or t.turns[last].depth < n // 4:
        return
    e = t.assigned[start].experiment
    newer = last
    a = np.int64(t.assigned[last].next)
    while a >= 0 and t.assigned[a].experiment == e:
        s = t.assigned[a]
        older = np.int64(s.next)
        repeats = older >= 0 and ea_of(t.assigned[older]) == ea_of(s)
        if repeats and t.assigned[older].at < s.at and s.own != a and s.touched == 0:
            mark_assigned(t, newer)
            mark_assigned(t, a)
            t.assigned[newer].next = older
            s.next = t.m[ASG_FREE]
            s.experiment = -1
            t.m[ASG_FREE] = a
        else:
            newer = a
        a = older
    index_group(t, start, np.int64(-1))


@njit(cache=True, nogil=True)
def index_turns(t):
    """Index all groups anew."""
    for u in range(t.users.shape[0]):
        a = np.int64(t.users[u].assigned)
        while a >= 0:
            if not has_turns(t, a):
                a = np.int64(t.assigned[a].next)
                continue
            e = t.assigned[a].experiment
            index_group(t, a, np.int64(-1))
            ring = np.int64(-1)
            while a >= 0 and t.assigned[a].experiment == e:
                if t.assigned[a].own == a:
                    join_ring(t, a, ring)
                    ring = a
                a = np.int64(t.assigned[a].next)
