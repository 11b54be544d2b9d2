"""The index of impressions by user and item; it is built when the first interaction without impression_id comes."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.index import alive, home, next_link, slot_of
from stream.engine.layout import (
    IMP_BASE,
    IMPS,
    ITEMS_ON,
    ITEMS_USED,
    WINDOW,
)
from stream.engine.primitives import LOW32, U0, U32, U64, mix


@njit
def item_key(item, user_key):
    """The two halves of the id of (user, item)."""
    first = mix(item ^ mix(user_key))
    return first, mix(first ^ U64(0x9E3779B97F4A7C15)) ^ item


@njit
def find_item(t, item, user):
    """(newest impression of this user and item or 0, slot)."""
    first, _ = item_key(item, t.user_keys[user])
    n = t.item_slots.shape[0]
    mask = t.imps.shape[0] - 1
    tag = first >> U32
    j = home(t.item_slots, first)
    free = np.int64(-1)
    for _ in range(n):
        s = t.item_slots[j]
        if s == U0:
            return np.int64(0), (free if free >= 0 else j)
        link = np.int64(s & LOW32)
        if not alive(link, t.m[IMP_BASE], t.m[IMPS]):
            if free < 0:
                free = j
        elif (s >> U32) == tag and t.imps[link & mask].item == item and t.imps[link & mask].user == user:
            return link, j
        j += 1
        if j == n:
            j = np.int64(0)
    return np.int64(0), free


@njit
def put_item(t, link):
    """Make an impression the newest of its user and item."""
    p = link & (t.imps.shape[0] - 1)
    old, slot = find_item(t, t.imps[p].item, np.int64(t.imps[p].user))
    first, _ = item_key(t.imps[p].item, t.user_keys[t.imps[p].user])
    if t.item_slots[slot] == U0:
        t.m[ITEMS_USED] += 1
    t.imps[p].same_item = old
    t.item_slots[slot] = slot_of(first, link)


@njit(cache=True, nogil=True)
def index_items(t):
    """Build the index by user and item over all held impressions, oldest first."""
    for k in range(t.m[IMPS]):
        link = next_link(t.m[IMP_BASE], k)
        if link != 0:
            put_item(t, link)
    t.m[ITEMS_ON] = 1


@njit
def best_of_item(t, item, user, at):
    """The user's latest impression of the item with 0 <= at - shown <= window, or 0; equal times: the larger key."""
    link, _ = find_item(t, item, user)
    mask = t.imps.shape[0] - 1
    best = np.int64(0)
    while alive(link, t.m[IMP_BASE], t.m[IMPS]):
        i = t.imps[link & mask]
        delta = at - i.at
        if delta >= 0 and delta <= t.m[WINDOW] and (best == 0 or is_better(t, link, best)):
            best = link
        link = np.int64(i.same_item)
    return best


@njit
def is_better(t, link, other):
    """Whether an impression is later than another one."""
    mask = t.imps.shape[0] - 1
    p, q = link & mask, other & mask
    if t.imps[p].at != t.imps[q].at:
        return t.imps[p].at > t.imps[q].at
    return t.imp_keys[p] > t.imp_keys[q]
