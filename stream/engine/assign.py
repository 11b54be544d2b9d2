"""Assignments: a user's arms over time, the policies for users who change arm, the repair of what was counted."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.credit import credit_held, phase_at, touch, touch_new
from stream.engine.layout import (
    ALWAYS,
    ARENA,
    AS_OF,
    ASG,
    ASG_FREE,
    DAY_MS,
    EARLIEST,
    EXCLUDE,
    EXCLUDED,
    MIXED,
)
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
def change_single(t, user, row, e, ea, at, buf, id_pos, id_len, user_slice, pre_value):
    """Take an assignment that matters under exclude or first."""
    s = t.assigned[row]
    same = s.ea == ea
    earlier = begins_earlier(t, row, at, buf, id_pos, id_len)
    touch(t, row)
    credit_held(t, user, e, -1)
    if not same:
        s.flags |= MIXED
        if t.policy[e] == EXCLUDE:
            s.flags |= EXCLUDED
    if earlier:
        days = s.at // DAY_MS - at // DAY_MS
        s.days = (np.int64(s.days) << days) & 0xFFFFFFFF if days < 32 else np.int64(0)
        keep_id(t, row, buf, id_pos, id_len)
        s.ea = ea
        begin(t, row, e, at, user_slice, pre_value)
    credit_held(t, user, e, 1)


@njit
def settle_group(t, start, e):
    """After a change: every row has its arm's own row, the flag MIXED and what belongs to the earliest assignment."""
    first = start
    a = start
    mixed = False
    while a >= 0 and t.assigned[a].experiment == e:
        mixed = mixed or t.assigned[a].ea != t.assigned[start].ea
        if t.assigned[a].at < t.assigned[first].at:
            first = a
        a = np.int64(t.assigned[a].next)
    f = t.assigned[first]
    touch(t, first)
    a = start
    while a >= 0 and t.assigned[a].experiment == e:
        touch(t, a)
        s = t.assigned[a]
        s.flags = MIXED if mixed else 0
        s.slice = f.slice
        s.phase = f.phase
        s.pre_value = f.pre_value
        if a != first:
            f.mixed_events += s.mixed_events
            f.before += s.before
            s.mixed_events = 0
            s.before = 0
        a = np.int64(s.next)
    f.flags |= EARLIEST


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
    clear(t, row, e, ea, at, buf, id_pos, id_len, b.slice, b.pre_value)
    r = t.assigned[row]
    r.own = b.own
    r.phase = b.phase
    r.flags = b.flags & ~EARLIEST
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
def begin(t, row, e, at, user_slice, pre_value):
    """Note when a user's time in an experiment begins, and what is known of the user then."""
    s = t.assigned[row]
    s.at = at
    s.slice = user_slice
    s.phase = phase_at(t, e, at)
    s.pre_value = pre_value


@njit
def clear(t, row, e, ea, at, buf, id_pos, id_len, user_slice, pre_value):
    """A free row becomes an assignment with zero sums."""
    r = t.assigned[row]
    r.exposed_at = -1 if t.policy[e] == AS_OF else ALWAYS
    r.revenue = 0
    r.early_revenue = 0
    r.latency = 0
    r.next = -1
    r.own = row
    r.ea = ea
    r.touched = 0
    r.impressions = 0
    r.clicked = 0
    r.converted = 0
    r.timed = 0
    r.clicks = 0
    r.conversions = 0
    r.early_clicks = 0
    r.early_conversions = 0
    r.mixed_events = 0
    r.before = 0
    r.foreign = 0
    r.days = 0
    r.exposed_days = 0
    r.experiment = e
    r.flags = EARLIEST
    keep_id(t, row, buf, id_pos, id_len)
    begin(t, row, e, at, user_slice, pre_value)
    if t.declared.shape[0] > row:
        t.declared[row, :] = 0


@njit(cache=True, nogil=True)
def apply_assignments(t, start, status, users, experiments, arms, at, buf, event_ids, slices, pre_values):
    """Apply assignments from row `start` on; returns the row that needs more room first, else the number of rows.

    experiments, arms: codes, arms unique over experiments. event_ids: packed texts in buf. slices: packed codes.
    pre_values: 0 where null.
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
            change_single(t, u, group, e, arms[i], at[i], buf, id_pos, id_len, slices[i], pre_values[i])
            continue
        ever = t.users[u].assigned >= 0
        row = new_row(t)
        clear(t, row, e, arms[i], at[i], buf, id_pos, id_len, slices[i], pre_values[i])
        touch_new(t, row)
        if known:
            credit_held(t, u, e, -1)
            insert_as_of(t, u, previous, group, e, row)
            group = np.int64(t.users[u].assigned) if previous < 0 else np.int64(t.assigned[previous].next)
            settle_group(t, group, e)
        else:
            t.assigned[row].next = group
            link_after(t, u, previous, row)
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
