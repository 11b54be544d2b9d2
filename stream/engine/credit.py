"""What one event contributes, with a sign: to its user's sums, to the arm's sums and to the panes.

Every held event's contribution is a function of the assignments and the attribution in force. A change of either takes
the old contribution back (sign -1), applies the change, and adds the new one. A user's row is kept as it was before the
step, and at the step's end the sums over users follow from the difference (see moments).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.contracts.limits import MAX_PHASES
from stream.engine.assigned import ea_of, touch, touch_seen
from stream.engine.index import LINK_MASK, alive, pair_find, pair_put
from stream.engine.layout import (
    ALWAYS,
    AS_OF,
    CLICK,
    CONVERSION,
    DAY_MS,
    DECLARED,
    EXCLUDED,
    IMP_BASE,
    IMPS,
    INT_BASE,
    INTS,
    MIXED,
    PANE_MS,
    SCRATCH,
    T_ORPHANED,
    TOUCHED,
    TROUBLES,
    UNKNOWN_TROUBLED,
    UNKNOWN_TROUBLES,
)
from stream.engine.turns import has_turns, in_force, oldest

EVERY = -1  # all experiments of the user


@njit
def phase_at(t, e, at):
    """The phase of an experiment's plan at a time."""
    phase = 0
    while phase + 1 < MAX_PHASES and t.phases[e, phase + 1] <= at:
        phase += 1
    return phase


@njit
def add_cell(t, arm, combo, at, dy, dx, dc, dk, do, dr):
    """Add to the pane of `at`, arm and slice combination."""
    a = (np.int64(arm) << 32) | np.int64(combo)
    b = at // PANE_MS
    r = pair_find(t.scratch_slots, t.scratch_keys, a, b)
    if r < 0:
        miss = r
        r = t.m[SCRATCH]
        t.m[SCRATCH] = r + 1
        pair_put(t.scratch_slots, t.scratch_keys, r, miss, a, b)
        for k in range(6):
            t.scratch[r, k] = 0
    t.scratch[r, 0] += dy
    t.scratch[r, 1] += dx
    t.scratch[r, 2] += dc
    t.scratch[r, 3] += dk
    t.scratch[r, 4] += do
    t.scratch[r, 5] += dr


@njit
def open_for(t, e, surface):
    """Whether an experiment counts events of this surface now."""
    if t.frozen[e] != 0:
        return False
    return t.has_surfaces[e] == 0 or t.surfaces[e, surface] != 0


@njit
def group_of(t, a, at):
    """One experiment in a user's list: (row in force at `at` or -1, earliest row, row of the next experiment or -1)."""
    if not has_turns(t, a):
        s = t.assigned[a]
        return (a if s.at <= at else np.int64(-1)), a, np.int64(s.next)
    last = oldest(t, a)
    # Of the earliest at equal times the one in force stands before.
    return in_force(t, a, at), in_force(t, a, t.assigned[last].at), np.int64(t.assigned[last].next)


@njit
def flag(t, first, hit, sign):
    """Count an event before the user's assignment, and one of a user seen in two arms."""
    mixed = (t.assigned[first].flags & MIXED) != 0
    if hit >= 0 and not mixed:
        return
    touch(t, first)
    if hit < 0:
        t.assigned[first].before += sign
    if mixed:
        t.assigned[first].mixed_events += sign


@njit
def credit_impression(t, link, dy, dx, dc, only):
    """Add an impression (dy), its being clicked (dx) and converted (dc) where it belongs; one experiment or EVERY."""
    p = link & (t.imps.shape[0] - 1)
    at = t.imps[p].at
    combo = np.int64(t.imps[p].combo)
    latency = np.int64(t.imps[p].latency)
    surface = t.combo_surface[combo]
    user = np.int64(t.imps[p].user)
    a = np.int64(t.users[user].assigned)
    while a >= 0:
        e = t.assigned[a].experiment
        hit, first, a = group_of(t, a, at)
        if (only >= 0 and e != only) or not open_for(t, e, surface) or at >= t.ends_at[e]:
            continue
        if dy != 0:
            flag(t, first, hit, dy)
        if hit < 0 or (t.assigned[first].flags & EXCLUDED) != 0:
            continue
        own = np.int64(t.assigned[hit].own)
        add_cell(t, ea_of(t.assigned[own]), combo, at, dy, dx, dc, 0, 0, np.int64(0))
        row = t.assigned[own]
        is_first = dy > 0 and at < row.exposed_at and t.policy[e] != AS_OF
        if is_first:
            touch(t, own)
        else:
            touch_seen(t, own)
        row.impressions += dy
        row.clicked += dx
        row.converted += dc
        if dy != 0 and latency >= 0:
            row.timed += dy
            row.latency += dy * latency
        if is_first:
            if only == EVERY:
                note_exposure(t, user, row.touched - 1, at)
            else:  # all held interactions are out of the sums: the caller puts them in afterwards
                expose(t, own, at)


@njit
def note_exposure(t, user, k, at):
    """An impression before all known ones, of the k-th of the touched rows: `expose_users` does the rest."""
    t.exposing[k].at = min(t.exposing[k].at, at)
    t.exposing[k].user = user


@njit
def expose(t, row, at):
    """The exposure starts at an impression before all known ones: the time when it started until now."""
    s = t.assigned[row]
    old = np.int64(s.exposed_at)
    s.exposed_at = at
    earlier = old // DAY_MS - at // DAY_MS
    s.exposed_days = (np.int64(s.exposed_days) << earlier) & 0xFFFFFFFF if earlier < 32 else np.int64(0)
    return old


@njit
def restate_early(t, user, row, old):
    """The exposure starts sooner than it did: held interactions since then were early and are no longer."""
    s = t.assigned[row]
    mask = t.ints.shape[0] - 1
    q = np.int64(t.users[user].interaction)
    while alive(q, t.m[INT_BASE], t.m[INTS]) and t.ints[q & mask].user == user:
        p = q & mask
        at = t.ints[p].at
        note_active(t, row, at)
        if s.exposed_at <= at and at < old and counts_in(t, p, s.experiment) and s.at <= at:
            add_early(t, row, p, -1)
        q = np.int64(t.ints[p].previous)


@njit(cache=True, nogil=True)
def expose_users(t):
    """Let the exposures start that the step's impressions moved: once for all of them, as it walks what is held."""
    for k in range(t.m[TOUCHED]):
        if t.exposing[k].at < ALWAYS:
            row = np.int64(t.before_row[k])
            restate_early(t, np.int64(t.exposing[k].user), row, expose(t, row, t.exposing[k].at))
            t.exposing[k].at = ALWAYS


@njit
def note_active(t, row, at):
    """The user did something: remember the date, counted from those of assignment and first impression."""
    s = t.assigned[row]
    if at >= t.ends_at[s.experiment]:
        return
    date = at // DAY_MS
    day = date - s.at // DAY_MS
    if 0 <= day and day < 32 and (np.int64(s.days) >> day) & 1 == 0:
        touch(t, row)
        s.days = np.int64(s.days) | (np.int64(1) << day)
    day = date - s.exposed_at // DAY_MS
    if 0 <= day and day < 32 and (np.int64(s.exposed_days) >> day) & 1 == 0:
        touch(t, row)
        s.exposed_days = np.int64(s.exposed_days) | (np.int64(1) << day)


@njit
def counts_in(t, p, e):
    """Whether the interaction at place p is within an experiment's surfaces and time."""
    if not open_for(t, e, t.combo_surface[np.int64(t.ints[p].combo)]):
        return False
    return t.ints[p].at < t.ends_at[e] or t.ints[p].shown_at < t.ends_at[e]


@njit
def revenue_of(t, p, e):
    """(whether the interaction's money is the experiment's, its value then)."""
    n = t.ints[p]
    if n.currency == 0 or n.currency == t.currency[e]:
        return True, np.int64(n.value)
    return False, np.int64(0)


@njit
def add_early(t, row, p, sign):
    """Add the interaction at place p to, or take it from, what came before the first impression."""
    s = t.assigned[row]
    n = t.ints[p]
    _, value = revenue_of(t, p, s.experiment)
    if n.kind & CLICK:
        s.early_clicks += sign
    if n.kind & CONVERSION:
        s.early_revenue += sign * value
        if n.value >= 0:
            s.early_conversions += sign
    add_declared(t, row, p, DECLARED, sign * value, sign)


@njit
def add_declared(t, row, p, group, value, sign):
    """Add the interaction at place p to the declared quantities that it feeds."""
    e = t.assigned[row].experiment
    feeds = np.int64(t.feeds[e, t.ints[p].word])
    if feeds == 0 or t.declared.shape[0] <= row:
        return
    for k in range(DECLARED):
        if t.ints[p].at < t.feeds_from[e, k]:
            continue
        if (feeds >> k) & 1:
            t.declared[row, group + k] += sign
        if (feeds >> (DECLARED + k)) & 1:
            t.declared[row, group + k] += value


@njit
def credit_interaction(t, link, sign, only):
    """Add what an interaction counts for itself, in the pane of its own time and the arm of that time."""
    p = link & (t.ints.shape[0] - 1)
    n = t.ints[p]
    at = n.at
    combo = np.int64(n.combo)
    dk = sign if n.kind & CLICK else 0
    do = sign if n.kind & CONVERSION and n.value >= 0 else 0
    a = np.int64(t.users[n.user].assigned)
    while a >= 0:
        e = t.assigned[a].experiment
        hit, first, a = group_of(t, a, at)
        if only >= 0 and e != only:
            continue
        if sign > 0 and t.frozen[e] == 0:
            note_active(t, first if hit < 0 else np.int64(t.assigned[hit].own), at)
        if not counts_in(t, p, e):
            continue
        flag(t, first, hit, sign)
        if hit < 0 or (t.assigned[first].flags & EXCLUDED) != 0:
            continue
        own = np.int64(t.assigned[hit].own)
        known, value = revenue_of(t, p, e)
        dr = sign * value if n.kind & CONVERSION else np.int64(0)
        if dk == 0 and do == 0 and dr == 0 and known and t.feeds[e, n.word] == 0:
            continue
        touch(t, own)
        row = t.assigned[own]
        if n.kind & CONVERSION and not known:
            row.foreign += sign
        row.clicks += dk
        row.conversions += do
        row.revenue += dr
        add_declared(t, own, p, 0, sign * value, sign)
        if at < row.exposed_at:
            add_early(t, own, p, sign)
        if dk != 0 or do != 0 or dr != 0:
            add_cell(t, ea_of(row), combo, at, 0, 0, 0, dk, do, dr)


@njit
def credit_held(t, user, only, sign):
    """Add or take back all held events of a user in one experiment, impressions first."""
    credit_between(t, user, only, sign, -ALWAYS, ALWAYS, 0, 0)


@njit
def credit_between(t, user, only, sign, start, end, old_impressions, old_interactions):
    """The same for those with start <= at < end; so many of the oldest rows of the rings are surely before `start`."""
    q = np.int64(t.users[user].impression)
    mask = t.imps.shape[0] - 1
    base, count = (t.m[IMP_BASE] + old_impressions) & LINK_MASK, t.m[IMPS] - old_impressions
    while alive(q, base, count) and t.imps[q & mask].user == user:
        i = t.imps[q & mask]
        if start <= i.at and i.at < end:
            credit_impression(t, q, sign, sign if i.clicks > 0 else 0, sign if i.conversions > 0 else 0, only)
        q = np.int64(i.previous)
    q = np.int64(t.users[user].interaction)
    mask = t.ints.shape[0] - 1
    base, count = (t.m[INT_BASE] + old_interactions) & LINK_MASK, t.m[INTS] - old_interactions
    while alive(q, base, count) and t.ints[q & mask].user == user:
        if start <= t.ints[q & mask].at and t.ints[q & mask].at < end:
            credit_interaction(t, q, sign, only)
        q = np.int64(t.ints[q & mask].previous)


@njit
def count_orphan(t, p):
    """Count the interaction at place p as orphaned if it is a click or a conversion: others need no impression."""
    if t.ints[p].kind != 0:
        count_trouble(t, np.int64(t.ints[p].user), t.ints[p].at, T_ORPHANED)


@njit
def count_trouble(t, user, at, kind):
    """Count an event that counts for nothing at the arms its user is in, as far as known now."""
    a = np.int64(t.users[user].assigned)
    if a < 0:
        t.m[UNKNOWN_TROUBLES + kind] += 1
        t.m[UNKNOWN_TROUBLED] = 1
    while a >= 0:
        e = t.assigned[a].experiment
        hit, first, a = group_of(t, a, at)
        if hit < 0 and kind == T_ORPHANED:
            continue  # counts for nothing, credited or not
        arm = np.int64(t.assigned[first if hit < 0 else hit].arm)
        t.troubles[e, arm * TROUBLES + kind] += 1
        t.troubled[e] = 1
