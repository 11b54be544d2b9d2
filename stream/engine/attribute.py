"""Impressions and interactions: their rows, and which interaction is credited to which impression."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.contracts.limits import EARLY_MS
from stream.engine.credit import (
    EVERY,
    count_orphan,
    credit_impression,
    credit_interaction,
)
from stream.engine.index import alive, find, home, likely_place, next_link, slot_of, still, tag_of
from stream.engine.items import best_of_item, is_better, item_key, put_item, unwatch_item, watch_item
from stream.engine.layout import (
    ALWAYS,
    ATTRIBUTED,
    BY_IMPRESSION,
    BY_ITEM,
    BY_NOTHING,
    CLICK,
    CONVERSION,
    DUPLICATE,
    IMP_BASE,
    IMPS,
    IMPS_USED,
    INT_BASE,
    INTS,
    ITEM_WATCHES,
    ITEMS_ON,
    L_CREDIT,
    LEDGER,
    NEED_HOURS,
    NO_REFERENCE,
    OTHER_USER,
    OUTSIDE,
    OUTSIDE_WINDOW,
    WAITING,
    WATCH_USED,
    WINDOW,
)
from stream.engine.ledger import set_credit
from stream.engine.marks import mark_impression_row, prefetch_impression
from stream.engine.primitives import U0, prefetch, prefetch_line
from stream.engine.room import assignments_of, has_room

AHEAD = 16
NEED_ITEMS = np.int64(-1) << 40  # added to the position: the index by item must be built first


@njit
def improves(t, impression, p):
    """Whether an impression is later than the one that the interaction at place p is credited to, if any."""
    old = np.int64(t.ints[p].impression)
    if old == 0:
        return True
    if alive(old, t.m[IMP_BASE], t.m[IMPS]):
        return is_better(t, impression, old)
    return t.imps[impression & (t.imps.shape[0] - 1)].at > t.ints[p].shown_at


@njit
def is_conversion(t, p):
    """A refund (negative value) is revenue but no conversion."""
    return (t.ints[p].kind & CONVERSION) != 0 and t.ints[p].value >= 0


@njit
def mark_impression(t, link, p, step):
    """Count (+1) or uncount (-1) the interaction at place p on its impression; the first one makes it clicked."""
    q = link & (t.imps.shape[0] - 1)
    mark_impression_row(t, q)
    if t.ints[p].kind & CLICK:
        old = np.int64(t.imps[q].clicks)
        t.imps[q].clicks = old + step
        if (old == 0) != (old + step == 0):
            credit_impression(t, link, 0, step, 0, EVERY)
    if is_conversion(t, p):
        old = np.int64(t.imps[q].conversions)
        t.imps[q].conversions = old + step
        if (old == 0) != (old + step == 0):
            credit_impression(t, link, 0, 0, step, EVERY)


@njit
def show(t, p, impression):
    """Note at place p of the interactions which impression it is credited to (0: none), with what outlives that one."""
    t.ints[p].impression = impression
    t.ints[p].combo = 0
    t.ints[p].shown_at = ALWAYS
    if impression != 0:
        i = t.imps[impression & (t.imps.shape[0] - 1)]
        t.ints[p].combo = i.combo
        t.ints[p].shown_at = i.at


@njit
def recredit(t, link, impression):
    """Credit a held interaction to another impression than before (0 before: it waited)."""
    p = link & (t.ints.shape[0] - 1)
    credit_interaction(t, link, -1, EVERY)
    old = np.int64(t.ints[p].impression)
    if alive(old, t.m[IMP_BASE], t.m[IMPS]):
        mark_impression(t, old, p, -1)
    show(t, p, impression)
    credit_interaction(t, link, 1, EVERY)
    mark_impression(t, impression, p, 1)
    set_credit(t, link, ATTRIBUTED)


@njit
def orphan(t, link, reason):
    """Give up to credit an interaction that waited."""
    set_credit(t, link, reason)
    count_orphan(t, link & (t.ints.shape[0] - 1))


@njit
def verdict(t, p, impression):
    """What the impression that an interaction names means for it: ATTRIBUTED, OTHER_USER or OUTSIDE_WINDOW."""
    i = t.imps[impression & (t.imps.shape[0] - 1)]
    if i.user != t.ints[p].user:
        return OTHER_USER
    delta = t.ints[p].at - i.at
    return ATTRIBUTED if -EARLY_MS <= delta and delta <= t.m[WINDOW] else OUTSIDE_WINDOW


@njit
def watchers_of(t, first, second):
    """Newest interaction that waits for this id, or 0."""
    if t.m[WATCH_USED] == 0:
        return np.int64(0)
    link, _ = find(t.watch_slots, t.int_keys, t.m[INT_BASE], t.m[INTS], first, second)
    return link


@njit
def watch(t, link, first, second):
    """Let an interaction wait for this id."""
    mask = t.ints.shape[0] - 1
    old, slot = find(t.watch_slots, t.int_keys, t.m[INT_BASE], t.m[INTS], first, second)
    if t.watch_slots[slot] == U0:
        t.m[WATCH_USED] += 1
    t.int_keys[link & mask] = second
    t.int_tags[link & mask] = tag_of(first)
    t.ints[link & mask].watches = 1
    t.ints[link & mask].watch = old
    t.watch_slots[slot] = slot_of(first, link)


@njit
def chain_length(t, link):
    """How many held interactions wait for the same id."""
    n = 0
    while alive(link, t.m[INT_BASE], t.m[INTS]):
        n += 1
        link = np.int64(t.ints[link & (t.ints.shape[0] - 1)].watch)
    return n


@njit
def answer_watchers(t, head, impression):
    """An impression came: settle the interactions that named it."""
    mask = t.ints.shape[0] - 1
    link = head
    while alive(link, t.m[INT_BASE], t.m[INTS]):
        p = link & mask
        if t.ints[p].credit == WAITING:
            said = verdict(t, p, impression)
            if said == ATTRIBUTED:
                recredit(t, link, impression)
            else:
                orphan(t, link, said)
        link = np.int64(t.ints[p].watch)


@njit
def _prefetch(t, status, users, ids, i, whole):
    """Hint what rows behind row i need: user and place in the index, later the user's first and second experiment.

    whole: whether all of an experiment's row will be needed, or what impressions change.
    """
    n = status.shape[0]
    j = i + AHEAD
    if j < n and status[j] == 0:
        prefetch(t.imp_slots, home(t.imp_slots, ids[j, 0]))
        prefetch(t.users, users[j])
    j = i + AHEAD // 2
    if j < n and status[j] == 0:
        a = np.int64(t.users[users[j]].assigned)
        if a >= 0 and whole:
            prefetch(t.assigned, a)
        elif a >= 0:
            prefetch_line(t.assigned, a)
    j = i + AHEAD // 4
    if j < n and status[j] == 0:
        a = np.int64(t.users[users[j]].assigned)
        if a >= 0:
            a = np.int64(t.assigned[a].next)
        if a >= 0 and whole:
            prefetch(t.assigned, a)
        elif a >= 0:
            prefetch_line(t.assigned, a)


# Without numba's reference counts, as fold_users.
@njit(cache=True, nogil=True, _nrt=False)
def apply_impressions(t, start, status, users, at, ids, items, combos, latencies, hours):
    """Store and credit impressions from row `start` on; returns the row that needs more room first, else the last + 1.

    ids, items: uint64 (rows, 2) hashes. latencies: milliseconds, -1 for null. Sets status to DUPLICATE or OUTSIDE
    where that is so.
    """
    n = status.shape[0]
    mask = t.imps.shape[0] - 1
    for i in range(start, n):
        _prefetch(t, status, users, ids, i, False)
        if status[i] != 0:
            continue
        known, slot = find(t.imp_slots, t.imp_keys, t.m[IMP_BASE], t.m[IMPS], ids[i, 0], ids[i, 1])
        if known != 0:
            status[i] = DUPLICATE
            continue
        u = users[i]
        named = watchers_of(t, ids[i, 0], ids[i, 1])
        waiting = chain_length(t, named) if named != 0 else 0
        arms = assignments_of(t, u)
        if not has_room(t, 1 + 4 * waiting, arms, arms, 2 * waiting):
            return i
        previous = still(np.int64(t.users[u].impression), t.m[IMP_BASE], t.m[IMPS])
        if next_link(t.m[IMP_BASE], t.m[IMPS]) == 0:
            t.m[IMPS] += 1
        link = next_link(t.m[IMP_BASE], t.m[IMPS])
        t.m[IMPS] += 1
        p = link & mask
        outside = 1 if t.users[u].assigned < 0 else 0
        row = t.imps[p]
        row.at = at[i]
        row.item = items[i, 0]
        row.user = u
        row.combo = combos[i]
        row.previous = previous
        row.clicks = 0
        row.conversions = 0
        row.hour = 2 * hours[i] + outside
        row.latency = latencies[i]
        t.imp_keys[p] = ids[i, 1]
        t.imp_tags[p] = tag_of(ids[i, 0])
        if t.imp_slots[slot] == U0:
            t.m[IMPS_USED] += 1
        t.imp_slots[slot] = slot_of(ids[i, 0], link)
        t.users[u].impression = link
        if t.m[ITEMS_ON] != 0:
            put_item(t, link)
        if outside != 0:
            status[i] = OUTSIDE
        credit_impression(t, link, 1, 0, 0, EVERY)
        if named != 0:
            answer_watchers(t, named, link)
    return n


@njit(cache=True, nogil=True, _nrt=False)
def apply_interactions(
    t, start, status, users, at, ids, items, refers, words, kinds, values, currencies, ledger_rows, hours
):
    """Store and credit interactions from row `start` on; returns as apply_impressions, or NEED_ITEMS + row.

    refers: BY_IMPRESSION, BY_ITEM or BY_NOTHING. words: codes of the kinds; kinds: what they mean. Sets status to
    OUTSIDE where that is so.
    """
    n = status.shape[0]
    mask = t.ints.shape[0] - 1
    for i in range(start, n):
        _prefetch(t, status, users, ids, i, True)
        j = i + AHEAD // 2
        if j < n and status[j] == 0 and refers[j] == BY_IMPRESSION:
            p = likely_place(t.imp_slots, t.imp_keys, ids[j, 0])
            prefetch(t.imp_keys, p)
            prefetch_impression(t, p)
        if status[i] != 0:
            continue
        if refers[i] == BY_ITEM and t.m[ITEMS_ON] == 0:
            return NEED_ITEMS + i
        u = users[i]
        arms = assignments_of(t, u)
        if not has_room(t, 4, arms, arms, 0):
            return i
        previous = still(np.int64(t.users[u].interaction), t.m[INT_BASE], t.m[INTS])
        if next_link(t.m[INT_BASE], t.m[INTS]) == 0:
            t.m[INTS] += 1
        link = next_link(t.m[INT_BASE], t.m[INTS])
        t.m[INTS] += 1
        p = link & mask
        outside = 1 if t.users[u].assigned < 0 else 0
        row = t.ints[p]
        row.at = at[i]
        row.value = values[i]
        row.user = u
        row.previous = previous
        row.watch = 0
        row.watches = 0
        row.hour = hours[i]
        row.currency = currencies[i]
        row.word = words[i]
        row.kind = kinds[i]
        row.refers = refers[i]
        row.outside = outside
        t.users[u].interaction = link
        if outside != 0:
            status[i] = OUTSIDE
        credit = NO_REFERENCE
        source = np.int64(0)
        if refers[i] == BY_IMPRESSION:
            named, _ = find(t.imp_slots, t.imp_keys, t.m[IMP_BASE], t.m[IMPS], ids[i, 0], ids[i, 1])
            if named == 0:
                credit = WAITING
                watch(t, link, ids[i, 0], ids[i, 1])
            else:
                credit = verdict(t, p, named)
                if credit == ATTRIBUTED:
                    source = named
        elif refers[i] == BY_ITEM:
            first, second = item_key(items[i, 0], t.user_keys[u])
            watch_item(t, link, first, second)
            t.m[ITEM_WATCHES] += 1
            source = best_of_item(t, items[i, 0], u, at[i])
            credit = ATTRIBUTED if source != 0 else WAITING
        t.ints[p].credit = credit
        if credit != ATTRIBUTED and credit != WAITING:
            count_orphan(t, p)
        show(t, p, source)
        if outside == 0:
            t.ledger[ledger_rows[i], L_CREDIT + credit] += 1
        credit_interaction(t, link, 1, EVERY)
        if source != 0:
            mark_impression(t, source, p, 1)
    return n


@njit(cache=True, nogil=True)
def orphan_waiting(t, count, unknown):
    """The oldest `count` interactions leave: those that still wait become orphans for the reason `unknown`."""
    for k in range(count):
        link = next_link(t.m[INT_BASE], k)
        if link == 0:
            continue
        p = link & (t.ints.shape[0] - 1)
        if t.ints[p].credit == WAITING:
            if t.m[LEDGER] + 1 > t.ledger_keys.shape[0]:
                t.m[NEED_HOURS] = count - k
                return k
            orphan(t, link, unknown)
        if t.ints[p].refers == BY_ITEM:
            unwatch_item(t, link)
            t.m[ITEM_WATCHES] -= 1
            t.ints[p].refers = BY_NOTHING
    return count
