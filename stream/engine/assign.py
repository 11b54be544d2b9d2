"""Assignments: a user's arms over time, the policies for users who change arm, the repair of what was counted."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.contracts.limits import MAX_ARMS
from stream.engine.assigned import ea_of, touch, touch_new
from stream.engine.credit import credit_between, credit_held, phase_at
from stream.engine.event_ids import compare_id, keep_id
from stream.engine.layout import (
    ALWAYS,
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
from stream.engine.marks import mark_assigned
from stream.engine.primitives import prefetch
from stream.engine.room import has_room, held_between
from stream.engine.turns import (
    has_turns,
    in_force,
    index_group,
    index_row,
    join_ring,
    oldest,
    own_row,
    prune,
)


@njit
def new_row(t):
    """A free row of `assigned`."""
    r = t.m[ASG_FREE]
    if r >= 0:
        t.m[ASG_FREE] = np.int64(t.assigned[r].next)
    else:
        r = t.m[ASG]
        t.m[ASG] = r + 1
    mark_assigned(t, r)
    return r


@njit
def follows(t, row, at, buf, id_pos, id_len):
    """Whether the assignment of a row is later than this one; equal times: the larger event_id."""
    a = t.assigned[row]
    if a.at != at:
        return a.at > at
    return compare_id(t, row, buf, id_pos, id_len) > 0


@njit
def begins_earlier(t, row, at, buf, id_pos, id_len):
    """Whether an assignment comes before the earliest known; of equal times the larger event_id is in force."""
    a = t.assigned[row]
    return at < a.at or (at == a.at and compare_id(t, row, buf, id_pos, id_len) < 0)


@njit
def matters_single(t, row, ea, at, buf, id_pos, id_len):
    """Policies exclude and first: only the earliest assignment and whether there was another arm matter."""
    another = ea_of(t.assigned[row]) != ea and (t.assigned[row].flags & MIXED) == 0
    return another or begins_earlier(t, row, at, buf, id_pos, id_len)


@njit
def change_single(t, user, row, e, ea, at, buf, id_pos, id_len, user_slice, pre_value):
    """Take an assignment that matters under exclude or first."""
    s = t.assigned[row]
    same = ea_of(s) == ea
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
        s.arm = ea - e * MAX_ARMS
        begin(t, row, e, at, user_slice, pre_value)
    credit_held(t, user, e, 1)


@njit
def place_of(t, start, at, buf, id_pos, id_len):
    """Where an assignment belongs in a group under as_of: (the next newer row or -1, the next older one or -1)."""
    newer = np.int64(-1)
    a = start
    while follows(t, a, at, buf, id_pos, id_len):
        newer = a
        if t.turns[a].depth == 0:
            return newer, np.int64(-1)
        j = np.int64(t.turns[a].jump)
        a = j if follows(t, j, at, buf, id_pos, id_len) else np.int64(t.assigned[a].next)
    return newer, a


@njit
def insert_as_of(t, user, previous, start, newer, older, row, own):
    """Put a row between two others of its group, the sums of its arm in `own` (-1: in itself): the group's start."""
    t.assigned[row].next = older if older >= 0 else t.assigned[newer].next
    t.assigned[row].own = row if own < 0 else own
    if own < 0:
        join_ring(t, row, np.int64(t.assigned[start].own))
    link_after(t, user, previous if newer < 0 else newer, row)
    if newer < 0:
        index_row(t, row, older)
        return row
    index_group(t, start, older)
    return start


@njit
def settle_group(t, start, row, earliest):
    """After a change: the rows with sums have the flag MIXED and what belongs to the earliest assignment.

    row: the new one; earliest: what was the earliest before.
    """
    first = in_force(t, start, t.assigned[oldest(t, start)].at)
    own = np.int64(t.assigned[row].own)
    f = t.assigned[first]
    t.assigned[row].flags = t.assigned[earliest].flags & ~EARLIEST
    if own != row and first == earliest:
        return
    touch_new(t, row)
    if first != earliest:
        touch(t, earliest)
        g = t.assigned[earliest]
        f.mixed_events = g.mixed_events
        f.before = g.before
        g.mixed_events = 0
        g.before = 0
        g.flags &= ~EARLIEST
    flags = MIXED if t.turns[own].ring != own else 0
    a = own
    while True:
        touch(t, a)
        s = t.assigned[a]
        s.flags = flags
        s.slice = f.slice
        s.phase = f.phase
        s.pre_value = f.pre_value
        a = np.int64(t.turns[a].ring)
        if a == own:
            break
    touch(t, first)
    f.flags = flags | EARLIEST


@njit
def take_as_of(
    t,
    user,
    previous,
    start,
    e,
    ea,
    at,
    buf,
    id_pos,
    id_len,
    user_slice,
    pre_value,
    old_impressions,
    old_interactions,
):
    """Policy as_of: one more assignment of a user in the experiment. False when it needs more room first."""
    newer, older = place_of(t, start, at, buf, id_pos, id_len)
    own = own_row(t, start, ea)
    # To the arm that is in force before it anyway: no event changes its arm and nobody the earliest assignment.
    repeats = older >= 0 and ea_of(t.assigned[older]) == ea and t.assigned[older].at < at
    begins, ends = at, (ALWAYS if newer < 0 else t.assigned[newer].at)
    earliest = in_force(t, start, t.assigned[oldest(t, start)].at)
    if own < 0 and t.assigned[earliest].flags & MIXED == 0:  # all are events of a mixed user from now on
        begins, ends, old_impressions, old_interactions = -ALWAYS, ALWAYS, 0, 0
    if not repeats:
        held = held_between(t, user, begins, ends, old_impressions, old_interactions)
        if not has_room(t, 2 * held + 2, 1, MAX_ARMS + 4, 0):
            return False
        credit_between(t, user, e, -1, begins, ends, old_impressions, old_interactions)
    row = new_row(t)
    clear(t, row, e, ea, at, buf, id_pos, id_len, user_slice, pre_value)
    head = insert_as_of(t, user, previous, start, newer, older, row, own)
    settle_group(t, head, row, earliest)
    if not repeats:
        credit_between(t, user, e, 1, begins, ends, old_impressions, old_interactions)
    return True


@njit
def link_after(t, user, before, row):
    """Put a row behind another one of the user's list (-1: first)."""
    if before >= 0:
        mark_assigned(t, before)
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
    r.arm = ea - e * MAX_ARMS
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
def apply_assignments(
    t, start, status, users, experiments, arms, at, buf, event_ids, slices, pre_values,
    old_impressions, old_interactions, settled,
):  # fmt: skip
    """Apply assignments from row `start` on; returns the row that needs more room first, else the number of rows.

    experiments, arms: codes, arms unique over experiments. event_ids: packed texts in buf. slices: packed codes.
    pre_values: 0 where null. old_*: how many of the oldest held rows are before it. settled: no event held or to come
    is before.
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
        while a >= 0 and t.assigned[a].experiment < e:
            previous = oldest(t, a) if has_turns(t, a) else a
            a = np.int64(t.assigned[previous].next)
        if a >= 0 and t.assigned[a].experiment == e and t.policy[e] == AS_OF:
            if not take_as_of(
                t, u, previous, a, e, arms[i], at[i], buf, id_pos, id_len, slices[i], pre_values[i],
                old_impressions[i], old_interactions[i],
            ):  # fmt: skip
                return i
            group = np.int64(t.users[u].assigned) if previous < 0 else np.int64(t.assigned[previous].next)
            prune(t, group, settled)
            continue
        known = a >= 0 and t.assigned[a].experiment == e
        if known and not matters_single(t, a, arms[i], at[i], buf, id_pos, id_len):
            continue
        held = held_between(t, u, -ALWAYS, ALWAYS, 0, 0)
        ever = t.users[u].assigned >= 0
        if not has_room(t, 2 * held + 2, 1, 2, 0 if ever else 2 * held + 2):
            return i
        if known:
            change_single(t, u, a, e, arms[i], at[i], buf, id_pos, id_len, slices[i], pre_values[i])
            continue
        row = new_row(t)
        clear(t, row, e, arms[i], at[i], buf, id_pos, id_len, slices[i], pre_values[i])
        touch_new(t, row)
        t.assigned[row].next = a
        link_after(t, u, previous, row)
        if t.policy[e] == AS_OF:
            index_row(t, row, np.int64(-1))
            join_ring(t, row, np.int64(-1))
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
                mark_assigned(t, a)
                t.assigned[a].next = t.m[ASG_FREE]
                t.assigned[a].experiment = -1
                t.m[ASG_FREE] = a
            else:
                previous = a
            a = following
