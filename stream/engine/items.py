"""The indexes by user and item: of impressions, and of the interactions that name an item instead of an impression.

Both give the root of a tree by time (see tree); 32 bytes an impression with its slot, 16 more an interaction. They are
built when the first interaction without impression_id comes.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.index import alive, find, home, next_link, slot_of, tag_of
from stream.engine.layout import (
    BY_ITEM,
    IMP_BASE,
    IMPS,
    INT_BASE,
    INTS,
    ITEM_WATCHES,
    ITEMS_ON,
    ITEMS_USED,
    WATCH_USED,
    WINDOW,
)
from stream.engine.primitives import LOW32, U0, U32, U64, mix, prefetch
from stream.engine.tree import NONE, insert, last_until, remove

AHEAD = 16


@njit
def item_key(item, user_key):
    """The two halves of the id of (user, item)."""
    first = mix(item ^ mix(user_key))
    return first, mix(first ^ U64(0x9E3779B97F4A7C15)) ^ item


@njit
def find_item(t, item, user):
    """(root of the impressions of this user and item or 0, slot)."""
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
    """Add an impression to those of its user and item."""
    i = t.imps[link & (t.imps.shape[0] - 1)]
    root, slot = find_item(t, i.item, np.int64(i.user))
    if t.item_slots[slot] == U0:
        t.m[ITEMS_USED] += 1
    first, _ = item_key(i.item, t.user_keys[i.user])
    t.item_slots[slot] = slot_of(first, insert(t.imp_nodes, t.imp_keys, root, link, i.at))


@njit(cache=True, nogil=True)
def drop_items(t, count):
    """The oldest `count` impressions leave their trees, before they leave the ring."""
    mask = t.imps.shape[0] - 1
    for k in range(count):
        ahead = t.imps[next_link(t.m[IMP_BASE], k + AHEAD) & mask]
        prefetch(t.user_keys, np.int64(ahead.user))
        link = next_link(t.m[IMP_BASE], k)
        if link == 0:
            continue
        i = t.imps[link & mask]
        root, slot = find_item(t, i.item, np.int64(i.user))
        rest = remove(t.imp_nodes, t.imp_keys, root, link)
        if rest != root and rest != NONE:  # the slot of the last one is free once the row has left
            first, _ = item_key(i.item, t.user_keys[i.user])
            t.item_slots[slot] = slot_of(first, rest)


@njit
def watch_item(t, link, first, second):
    """Let an interaction be credited to any better impression of its user and item that may come."""
    p = link & (t.ints.shape[0] - 1)
    root, slot = find(t.watch_slots, t.int_keys, t.m[INT_BASE], t.m[INTS], first, second)
    if t.watch_slots[slot] == U0:
        t.m[WATCH_USED] += 1
    t.int_keys[p] = second
    t.int_tags[p] = tag_of(first)
    t.ints[p].watches = 1
    t.watch_slots[slot] = slot_of(first, insert(t.int_nodes, t.int_keys, root, link, t.ints[p].at))


@njit
def unwatch_item(t, link):
    """An interaction that named an item leaves, before its row does."""
    p = link & (t.ints.shape[0] - 1)
    first = U64(t.int_tags[p]) << U32
    root, slot = find(t.watch_slots, t.int_keys, t.m[INT_BASE], t.m[INTS], first, t.int_keys[p])
    rest = remove(t.int_nodes, t.int_keys, root, link)
    if rest != root and rest != NONE:
        t.watch_slots[slot] = slot_of(first, rest)


@njit(cache=True, nogil=True)
def index_items(t):
    """Build both indexes over all held rows, oldest first."""
    for k in range(t.m[IMPS]):
        link = next_link(t.m[IMP_BASE], k)
        if link != 0:
            put_item(t, link)
    t.m[ITEMS_ON] = 1
    if t.m[ITEM_WATCHES] == 0:
        return
    for k in range(t.m[INTS]):
        link = next_link(t.m[INT_BASE], k)
        p = link & (t.ints.shape[0] - 1)
        if link != 0 and t.ints[p].refers == BY_ITEM:
            watch_item(t, link, U64(t.int_tags[p]) << U32, t.int_keys[p])


@njit
def best_of_item(t, item, user, at):
    """The user's latest impression of the item with 0 <= at - shown <= window, or 0; equal times: the larger key."""
    root, _ = find_item(t, item, user)
    best = last_until(t.imp_nodes, root, at)
    if best != 0 and at - t.imps[best & (t.imps.shape[0] - 1)].at > t.m[WINDOW]:
        return NONE
    return best


@njit
def is_better(t, link, other):
    """Whether an impression is later than another one."""
    mask = t.imps.shape[0] - 1
    p, q = link & mask, other & mask
    if t.imps[p].at != t.imps[q].at:
        return t.imps[p].at > t.imps[q].at
    return t.imp_keys[p] > t.imp_keys[q]
