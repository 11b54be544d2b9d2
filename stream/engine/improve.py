"""Better impressions: what a step's impressions change for held interactions that name their item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.attribute import improves, recredit
from stream.engine.index import LINK_MASK, find
from stream.engine.items import find_item, item_key
from stream.engine.layout import IMP_BASE, INT_BASE, INTS, ITEM_WATCHES, WINDOW
from stream.engine.room import assignments_of, has_room
from stream.engine.tree import first_from, following


@njit
def reach(t, link):
    """The last moment at which an impression is the best one of its user and item."""
    mask = t.imps.shape[0] - 1
    i = t.imps[link & mask]
    root, _ = find_item(t, i.item, np.int64(i.user))
    later = following(t.imp_nodes, t.imp_keys, root, link)
    until = i.at + t.m[WINDOW]
    return until if later == 0 else min(until, t.imps[later & mask].at - 1)


@njit
def improve(t, root, impression, until, recrediting):
    """How many interactions of this tree an impression is better for; recrediting: and credit them to it."""
    mask = t.ints.shape[0] - 1
    n = 0
    link = first_from(t.int_nodes, root, t.imps[impression & (t.imps.shape[0] - 1)].at)
    while link != 0 and t.ints[link & mask].at <= until:
        if improves(t, impression, link & mask):
            n += 1
            if recrediting:
                recredit(t, link, impression)
        link = following(t.int_nodes, t.int_keys, root, link)
    return n


@njit(cache=True, nogil=True)
def improve_by_item(t, start, stop):
    """Credit held interactions to the impressions of the ring's rows start <= k < stop where these are better.

    Once a step, when all its impressions are there: so each interaction changes at most once in it. Returns the row
    that needs more room first, else `stop`.
    """
    for k in range(start, stop):
        link = (t.m[IMP_BASE] + k) & LINK_MASK
        if link == 0 or t.m[ITEM_WATCHES] == 0:
            continue
        i = t.imps[link & (t.imps.shape[0] - 1)]
        first, second = item_key(i.item, t.user_keys[i.user])
        root, _ = find(t.watch_slots, t.int_keys, t.m[INT_BASE], t.m[INTS], first, second)
        if root == 0:
            continue
        until = reach(t, link)
        changing = improve(t, root, link, until, False)
        arms = assignments_of(t, np.int64(i.user))
        if not has_room(t, 4 * changing, arms, arms, 2 * changing):
            return k
        improve(t, root, link, until, True)
    return stop
