"""What one event contributes, with a sign: to its user's sums, to the arm's sums and to the panes.

Every held event's contribution is a function of the assignments and the attribution in force. A change of either takes
the old contribution back (sign -1), applies the change, and adds the new one. Sums over users follow from the change of
one user's sums: d(x*y) = x1*y1 - x0*y0.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.index import alive, pair_find, pair_put
from stream.engine.layout import (
    CLICK,
    CONVERSION,
    EXCLUDED,
    F_ASSIGNED,
    F_BEFORE,
    F_C,
    F_CC,
    F_CY,
    F_EXPOSED,
    F_FOREIGN,
    F_K,
    F_KK,
    F_MIXED_EVENTS,
    F_O,
    F_OO,
    F_X,
    F_XX,
    F_XY,
    F_Y,
    F_YY,
    FINE,
    FINE_TOUCHED,
    IMP_BASE,
    IMPS,
    INT_BASE,
    INTS,
    MIXED,
    PANE_MS,
    SCRATCH,
    W_R,
    W_RO,
    W_RR,
)
from stream.engine.primitives import add128, add_product128

EVERY = -1  # all experiments of the user
ALWAYS = np.int64(1) << 62


@njit
def touch_fine(t, fine):
    """Remember that this row of sums changed in this step (its first column counts the changes)."""
    if t.fine_touched[fine] == 0:
        t.fine_touched[fine] = 1
        t.m[FINE_TOUCHED] += 1


@njit
def fine_row(t, arm, user_slice):
    """The row of sums of an arm and a user slice; room for it is the caller's duty."""
    r = pair_find(t.fine_slots, t.fine_keys, arm, user_slice)
    if r < 0:
        miss = r
        r = t.m[FINE]
        t.m[FINE] = r + 1
        pair_put(t.fine_slots, t.fine_keys, r, miss, arm, user_slice)
    return r


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
def add_user(t, row, dy, dx, dc, dk, do, dr):
    """Change one user's sums in one experiment and, with them, the sums of the arm."""
    s = t.assigned[row]
    f = np.int64(s.fine)
    touch_fine(t, f)
    y = np.int64(s.impressions)
    x = np.int64(s.clicked)
    c = np.int64(s.converted)
    k = np.int64(s.clicks)
    o = np.int64(s.conversions)
    r = np.int64(s.revenue)
    if dy != 0 or dx != 0 or dc != 0:
        y1 = y + dy
        x1 = x + dx
        c1 = c + dc
        t.fine[f, F_EXPOSED] += (1 if y1 > 0 else 0) - (1 if y > 0 else 0)
        t.fine[f, F_Y] += dy
        t.fine[f, F_X] += dx
        t.fine[f, F_C] += dc
        t.fine[f, F_YY] += y1 * y1 - y * y
        t.fine[f, F_XX] += x1 * x1 - x * x
        t.fine[f, F_XY] += x1 * y1 - x * y
        t.fine[f, F_CC] += c1 * c1 - c * c
        t.fine[f, F_CY] += c1 * y1 - c * y
        t.assigned[row].impressions = y1
        t.assigned[row].clicked = x1
        t.assigned[row].converted = c1
    if dk != 0:
        k1 = k + dk
        t.fine[f, F_K] += dk
        t.fine[f, F_KK] += k1 * k1 - k * k
        t.assigned[row].clicks = k1
    if do != 0 or dr != 0:
        o1 = o + do
        r1 = r + dr
        t.fine[f, F_O] += do
        t.fine[f, F_OO] += o1 * o1 - o * o
        add128(t.wide, f, W_R, dr)
        add_product128(t.wide, f, W_RR, r1, r1)
        add_product128(t.wide, f, W_RR, -r, r)
        add_product128(t.wide, f, W_RO, r1, o1)
        add_product128(t.wide, f, W_RO, -r, o)
        t.assigned[row].conversions = o1
        t.assigned[row].revenue = r1


@njit
def move_user(t, row, sign):
    """Add (+1) or take out (-1) all of a user's sums, and the user as such, to or from the sums of the arm."""
    s = t.assigned[row]
    f = np.int64(s.fine)
    touch_fine(t, f)
    if s.flags & EXCLUDED:
        return
    y = np.int64(s.impressions)
    x = np.int64(s.clicked)
    c = np.int64(s.converted)
    k = np.int64(s.clicks)
    o = np.int64(s.conversions)
    r = np.int64(s.revenue)
    t.fine[f, F_ASSIGNED] += sign
    t.fine[f, F_EXPOSED] += sign if y > 0 else 0
    t.fine[f, F_Y] += sign * y
    t.fine[f, F_X] += sign * x
    t.fine[f, F_C] += sign * c
    t.fine[f, F_K] += sign * k
    t.fine[f, F_O] += sign * o
    t.fine[f, F_YY] += sign * y * y
    t.fine[f, F_XX] += sign * x * x
    t.fine[f, F_XY] += sign * x * y
    t.fine[f, F_CC] += sign * c * c
    t.fine[f, F_CY] += sign * c * y
    t.fine[f, F_KK] += sign * k * k
    t.fine[f, F_OO] += sign * o * o
    add128(t.wide, f, W_R, sign * r)
    add_product128(t.wide, f, W_RR, sign * r, r)
    add_product128(t.wide, f, W_RO, sign * r, o)


@njit
def open_for(t, e, surface):
    """Whether an experiment counts events of this surface now."""
    if t.frozen[e] != 0:
        return False
    return t.has_surfaces[e] == 0 or t.surfaces[e, surface] != 0


@njit
def group_of(t, a, at):
    """One experiment in a user's list: (row in force at `at` or -1, earliest row, row of the next experiment or -1)."""
    e = t.assigned[a].experiment
    hit = np.int64(-1)
    first = a
    while a >= 0 and t.assigned[a].experiment == e:
        if hit < 0 and t.assigned[a].at <= at:
            hit = a
        if t.assigned[a].at < t.assigned[first].at:
            first = a  # of equal times the one in force stands before
        a = np.int64(t.assigned[a].next)
    return hit, first, a


@njit
def flag(t, first, hit, sign):
    """Count an event before the user's assignment, and one of a user seen in two arms."""
    f = np.int64(t.assigned[first].fine)
    mixed = (t.assigned[first].flags & MIXED) != 0
    if hit < 0:
        touch_fine(t, f)
        t.fine[f, F_BEFORE] += sign
    if mixed:
        touch_fine(t, f)
        t.fine[f, F_MIXED_EVENTS] += sign


@njit
def credit_impression(t, link, dy, dx, dc, only):
    """Add an impression (dy), its being clicked (dx) and converted (dc) where it belongs; one experiment or EVERY."""
    p = link & (t.imps.shape[0] - 1)
    at = t.imps[p].at
    combo = np.int64(t.imps[p].combo)
    surface = t.combo_surface[combo]
    a = np.int64(t.users[t.imps[p].user].assigned)
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
        add_cell(t, t.assigned[own].ea, combo, at, dy, dx, dc, 0, 0, np.int64(0))
        add_user(t, own, dy, dx, dc, 0, 0, np.int64(0))


@njit
def credit_interaction(t, link, sign, only):
    """Add what an interaction counts for itself, in the pane of its own time and the arm of that time."""
    p = link & (t.ints.shape[0] - 1)
    n = t.ints[p]
    at = n.at
    combo = np.int64(n.combo)
    shown_at = n.shown_at
    surface = t.combo_surface[combo]
    dk = sign if n.kind & CLICK else 0
    do = sign if n.kind & CONVERSION and n.value >= 0 else 0
    a = np.int64(t.users[n.user].assigned)
    while a >= 0:
        e = t.assigned[a].experiment
        hit, first, a = group_of(t, a, at)
        if (only >= 0 and e != only) or not open_for(t, e, surface):
            continue
        if at >= t.ends_at[e] and shown_at >= t.ends_at[e]:
            continue
        flag(t, first, hit, sign)
        if hit < 0 or (t.assigned[first].flags & EXCLUDED) != 0:
            continue
        own = np.int64(t.assigned[hit].own)
        dr = np.int64(0)
        if n.kind & CONVERSION:
            if n.currency == 0 or n.currency == t.currency[e]:
                dr = sign * n.value
            else:
                f = np.int64(t.assigned[own].fine)
                touch_fine(t, f)
                t.fine[f, F_FOREIGN] += sign
        if dk != 0 or do != 0 or dr != 0:
            add_cell(t, t.assigned[own].ea, combo, at, 0, 0, 0, dk, do, dr)
            add_user(t, own, 0, 0, 0, dk, do, dr)


@njit
def credit_held(t, user, only, sign):
    """Add or take back all held events of a user in one experiment."""
    q = np.int64(t.users[user].impression)
    mask = t.imps.shape[0] - 1
    while alive(q, t.m[IMP_BASE], t.m[IMPS]) and t.imps[q & mask].user == user:
        i = t.imps[q & mask]
        credit_impression(t, q, sign, sign if i.clicks > 0 else 0, sign if i.conversions > 0 else 0, only)
        q = np.int64(i.previous)
    q = np.int64(t.users[user].interaction)
    mask = t.ints.shape[0] - 1
    while alive(q, t.m[INT_BASE], t.m[INTS]) and t.ints[q & mask].user == user:
        credit_interaction(t, q, sign, only)
        q = np.int64(t.ints[q & mask].previous)
