"""Assignments: a user's arms over time, the policies for users who change arm, the repair of what was counted."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.credit import (
    credit_held,
    fine_row,
    move_user,
    touch_fine,
)
from stream.engine.layout import ARENA, AS_OF, ASG, ASG_FREE, EXCLUDE, EXCLUDED, F_MIXED_USERS, MIXED
from stream.engine.ledger import count_outside_events
from stream.engine.primitives import prefetch
from stream.engine.room import has_room, held_events


@njit
def new_row(t):
    """A free row of `assigned`."""
    r = t.m[ASG_FREE]
    if r >= 0:
        t.m[ASG_FREE] = np.int64(t.assigned[r].next)
        return r
    r = t.m[ASG]
    t.m[ASG] = r + 1
    return r


@njit
def id_is_larger(buf, pos, length, other, other_pos, other_length):
    """Compare two event_ids, byte by byte."""
    for k in range(min(length, other_length)):
        a = buf[pos + k]
        b = other[other_pos + k]
        if a != b:
            return a > b
    return length > other_length


@njit
def keep_id(t, row, buf, pos, length):
    """Copy an event_id into the arena; room for it is the caller's duty."""
    start = t.m[ARENA]
    for k in range(length):
        t.arena[start + k] = buf[pos + k]
    t.m[ARENA] = start + length
    t.assigned[row].id_pos = start
    t.assigned[row].id_len = length


@njit
def is_after(t, row, other):
    """Whether the assignment of a row is later than another; equal times: the larger event_id."""
    a = t.assigned[row]
    b = t.assigned[other]
    if a.at != b.at:
        return a.at > b.at
    return id_is_larger(t.arena, a.id_pos, a.id_len, t.arena, b.id_pos, b.id_len)


@njit
def count_mixed(t, row, sign):
    """Count a user seen in two arms, at the user's earliest assignment."""
    f = np.int64(t.assigned[row].fine)
    touch_fine(t, f)
    t.fine[f, F_MIXED_USERS] += sign


@njit
def begins_earlier(t, row, at, buf, id_pos, id_len):
    """Whether an assignment comes before the earliest known; of equal times the larger event_id is in force."""
    a = t.assigned[row]
    return at < a.at or (at == a.at and id_is_larger(buf, id_pos, id_len, t.arena, a.id_pos, a.id_len))


@njit
def matters_single(t, row, ea, at, buf, id_pos, id_len):
    """Policies exclude and first: only the earliest assignment and whether there was another arm matter."""
    another = t.assigned[row].ea != ea and (t.assigned[row].flags & MIXED) == 0
    return another or begins_earlier(t, row, at, buf, id_pos, id_len)


@njit
def change_single(t, user, row, e, ea, at, buf, id_pos, id_len, user_slice):
    """Take an assignment that matters under exclude or first."""
    same = t.assigned[row].ea == ea
    earlier = begins_earlier(t, row, at, buf, id_pos, id_len)
    mixed = (t.assigned[row].flags & MIXED) != 0
    credit_held(t, user, e, -1)
    move_user(t, row, -1)
    if mixed:
        count_mixed(t, row, -1)
    if not same:
        t.assigned[row].flags |= MIXED
        if t.policy[e] == EXCLUDE:
            t.assigned[row].flags |= EXCLUDED
    if earlier:
        t.assigned[row].at = at
        keep_id(t, row, buf, id_pos, id_len)
        t.assigned[row].ea = ea
        t.assigned[row].slice = user_slice
        t.assigned[row].fine = fine_row(t, ea, user_slice)
    if mixed or not same:
        count_mixed(t, row, 1)
    move_user(t, row, 1)
    credit_held(t, user, e, 1)


@njit
def move_group(t, start, e, sign):
    """Take out or add the sums of all arms of one user in one experiment."""
    a = start
    first = start
    while a >= 0 and t.assigned[a].experiment == e:
        if t.assigned[a].own == a:
            move_user(t, a, sign)
        if t.assigned[a].at < t.assigned[first].at:
            first = a
        a = np.int64(t.assigned[a].next)
    if t.assigned[start].flags & MIXED:
        count_mixed(t, first, sign)


@njit
def settle_group(t, start, e):
    """After a change: every row knows its arm's own row, the flag MIXED and the earliest assignment's slice."""
    first = start
    a = start
    mixed = False
    while a >= 0 and t.assigned[a].experiment == e:
        mixed = mixed or t.assigned[a].ea != t.assigned[start].ea
        if t.assigned[a].at < t.assigned[first].at:
            first = a
        a = np.int64(t.assigned[a].next)
    a = start
    while a >= 0 and t.assigned[a].experiment == e:
        t.assigned[a].flags = MIXED if mixed else 0
        t.assigned[a].fine = fine_row(t, t.assigned[a].ea, t.assigned[first].slice)
        a = np.int64(t.assigned[a].next)


@njit
def insert_as_of(t, user, previous, start, e, row):
    """Policy as_of: every assignment is kept, newest first; sums stay in the row that was its arm's first to come."""
    a = start
    own = row
    while a >= 0 and t.assigned[a].experiment == e:
        if t.assigned[a].ea == t.assigned[row].ea:
            own = np.int64(t.assigned[a].own)
        a = np.int64(t.assigned[a].next)
    t.assigned[row].own = own
    before = previous
    a = start
    while a >= 0 and t.assigned[a].experiment == e and is_after(t, a, row):
        before = a
        a = np.int64(t.assigned[a].next)
    t.assigned[row].next = a
    link_after(t, user, before, row)


@njit
def repeats_as_of(t, user, previous, start, e, ea, at, buf, id_pos, id_len):
    """Policy as_of: insert an assignment to the arm that is in force before it anyway; False if it is another one.

    No event changes its arm and nobody the earliest assignment. The row is kept all the same: an assignment to
    another arm may come that stands before it.
    """
    before = previous
    a = start
    while a >= 0 and t.assigned[a].experiment == e:
        b = t.assigned[a]
        if b.at < at or (b.at == at and not id_is_larger(t.arena, b.id_pos, b.id_len, buf, id_pos, id_len)):
            break
        before = a
        a = np.int64(b.next)
    if a < 0 or t.assigned[a].experiment != e or t.assigned[a].ea != ea or t.assigned[a].at == at:
        return False
    row = new_row(t)
    b = t.assigned[a]
    r = t.assigned[row]
    r.at = at
    keep_id(t, row, buf, id_pos, id_len)
    r.own = b.own
    r.fine = b.fine
    r.ea = ea
    r.slice = b.slice
    r.experiment = e
    r.flags = b.flags
    r.next = a
    link_after(t, user, before, row)
    return True


@njit
def link_after(t, user, before, row):
    """Put a row behind another one of the user's list (-1: first)."""
    if before >= 0:
        t.assigned[before].next = row
    else:
        t.users[user].assigned = row


@njit
def fill(t, row, e, ea, at, buf, id_pos, id_len, user_slice):
    """A fresh row with zero sums."""
    r = t.assigned[row]
    r.at = at
    r.revenue = 0
    keep_id(t, row, buf, id_pos, id_len)
    r.next = -1
    r.own = row
    r.ea = ea
    r.slice = user_slice
    r.fine = fine_row(t, ea, user_slice)
    r.impressions = 0
    r.clicked = 0
    r.converted = 0
    r.clicks = 0
    r.conversions = 0
    r.experiment = e
    r.flags = 0


@njit(cache=True, nogil=True)
def apply_assignments(t, start, status, users, experiments, arms, at, buf, event_ids, slices):
    """Apply assignments from row `start` on; returns the row that needs more room first, else the number of rows.

    experiments, arms: codes, arms unique over experiments. event_ids: packed texts in buf. slices: packed codes.
    """
    n = status.shape[0]
    for i in range(start, n):
        if i + 16 < n and status[i + 16] == 0:
            prefetch(t.users, users[i + 16])
        if status[i] != 0:
            continue
        u = users[i]
        e = experiments[i]
        if t.frozen[e] != 0 or at[i] >= t.ends_at[e]:
            continue
        id_pos = event_ids[i] >> 20
        id_len = event_ids[i] & 0xFFFFF
        previous = np.int64(-1)
        a = np.int64(t.users[u].assigned)
        length = 0
        while a >= 0 and t.assigned[a].experiment < e:
            previous = a
            length += 1
            a = np.int64(t.assigned[a].next)
        known = a >= 0 and t.assigned[a].experiment == e
        if known and t.policy[e] != AS_OF and not matters_single(t, a, arms[i], at[i], buf, id_pos, id_len):
            continue
        if (
            known
            and t.policy[e] == AS_OF
            and repeats_as_of(t, u, previous, a, e, arms[i], at[i], buf, id_pos, id_len)
        ):
            continue
        while a >= 0 and t.assigned[a].experiment == e and known:
            length += 1
            a = np.int64(t.assigned[a].next)
        held = held_events(t, u)
        if not has_room(t, 2 * held + 2, 1, length + 2, 0 if t.users[u].assigned >= 0 else 2 * held + 2):
            return i
        group = np.int64(t.users[u].assigned) if previous < 0 else np.int64(t.assigned[previous].next)
        if known and t.policy[e] != AS_OF:
            change_single(t, u, group, e, arms[i], at[i], buf, id_pos, id_len, slices[i])
            continue
        ever = t.users[u].assigned >= 0
        row = new_row(t)
        fill(t, row, e, arms[i], at[i], buf, id_pos, id_len, slices[i])
        if known:
            credit_held(t, u, e, -1)
            move_group(t, group, e, -1)
            insert_as_of(t, u, previous, group, e, row)
            group = np.int64(t.users[u].assigned) if previous < 0 else np.int64(t.assigned[previous].next)
            settle_group(t, group, e)
            move_group(t, group, e, 1)
        else:
            t.assigned[row].next = group
            link_after(t, u, previous, row)
            move_user(t, row, 1)
        if not ever:
            count_outside_events(t, u)
        credit_held(t, u, e, 1)
    return n


@njit(cache=True, nogil=True)
def drop_experiment(t, e):
    """Free all users' rows of a frozen experiment; its sums stay as they were last emitted."""
    for u in range(t.users.shape[0]):
        previous = np.int64(-1)
        a = np.int64(t.users[u].assigned)
        while a >= 0:
            following = np.int64(t.assigned[a].next)
            if t.assigned[a].experiment == e:
                link_after(t, u, previous, following)
                t.assigned[a].next = t.m[ASG_FREE]
                t.assigned[a].experiment = -1
                t.m[ASG_FREE] = a
            else:
                previous = a
            a = following
