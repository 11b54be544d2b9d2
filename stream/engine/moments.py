"""What is summed over users, and how one user's change reaches the sums.

A user in an experiment is a vector of quantities: impressions, clicks, revenue, ... Once as assigned (since the
assignment) and once as exposed (since the first impression, all zero before it). An arm's sums are sums over users of
quantities and of products of two of them. A user's old vector is taken out and the new one put in, so a sum never sees
single events: d(x y) = x1 y1 - x0 y0.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from itertools import combinations

import numpy as np
from numba import njit

from stream.engine.layout import DECLARED, EARLIEST, EXCLUDED, MIXED
from stream.engine.primitives import add128, add_product128

SLOTS = range(1, DECLARED + 1)
_DECLARED = tuple(f"declared_{slot}" for slot in SLOTS)

# In the order in which `quantities` fills them; those with a leading underscore have no sum of their own.
AS_ASSIGNED = (
    "assigned_users", "clicks", "conversions", "revenue", "capped_revenue", "converted_users", "pre_value", *_DECLARED,
    "_foretold",
)  # fmt: skip
AS_EXPOSED = (
    "exposed_users", "impressions", "clicked", "converted", "latency", "timed_impressions", "exposed_clicks",
    "exposed_conversions", "exposed_revenue", "exposed_capped_revenue", "exposed_converted_users",
    "exposed_pre_value", *(f"exposed_{name}" for name in _DECLARED), "_exposed_foretold",
)  # fmt: skip
FLAGS = ("mixed_users", "mixed_events", "before_assignment", "foreign_currency")
QUANTITIES = (*AS_ASSIGNED, *AS_EXPOSED, *FLAGS)

_STORED = {
    "revenue": "revenue_minor", "capped_revenue": "capped_revenue_minor", "clicked": "clicked_impressions",
    "converted": "converted_impressions", "latency": "latency_ms", "exposed_revenue": "exposed_revenue_minor",
    "exposed_capped_revenue": "exposed_capped_revenue_minor",
}  # fmt: skip
_NOT_SQUARED = {"assigned_users", "exposed_users", "converted_users", "exposed_converted_users"}


def _products() -> dict[str, tuple[str, str]]:
    squared = [q for q in (*AS_ASSIGNED, *AS_EXPOSED) if q not in _NOT_SQUARED and not q.startswith("_")]
    found = {f"{q}_sq": (q, q) for q in squared}
    found |= {f"{q}_x_impressions": (q, "impressions") for q in ("clicked", "converted")}
    found["latency_x_timed_impressions"] = ("latency", "timed_impressions")
    for e in ("", "exposed_"):
        found[f"{e}revenue_x_conversions"] = (f"{e}revenue", f"{e}conversions")
        found[f"{e}pre_value_x_foretold"] = (f"{e}pre_value", f"_{e}foretold")
        for a, b in combinations(_DECLARED, 2):
            found[f"{e}{a}_x_{b[-1]}"] = (f"{e}{a}", f"{e}{b}")
    return found | {f"exposed_{q}_x_impressions": (f"exposed_{q}", "impressions") for q in _DECLARED}


SUMS = {_STORED.get(q, q): (q, None) for q in QUANTITIES if not q.startswith("_")}
PRODUCTS = _products()
MOMENTS = (*SUMS, *PRODUCTS)  # names of the sums, in their order in the arrays

_PLACE = {name: place for place, name in enumerate(QUANTITIES)}
N = len(QUANTITIES)
PAIRS = np.array(
    [(_PLACE[q], -1) for q, _ in SUMS.values()] + [(_PLACE[a], _PLACE[b]) for a, b in PRODUCTS.values()],
    np.int64,
)  # fmt: skip
_WITH = [[p for p, pair in enumerate(PAIRS.tolist()) if q in pair] for q in range(N)]
WITH = np.array(
    [[*row, *[-1] * (max(map(len, _WITH)) - len(row))] for row in _WITH], np.int64
)  # sums by quantity

SMALL = np.int64(1) << 31  # the difference of two products of smaller numbers fits into one word
# Quantities of impressions and of what they are credited with: the fields of `seen`
SHOWN = (
    "impressions",
    "clicked",
    "converted",
    "latency",
    "timed_impressions",
)
_SHOWN_SUMS = tuple(MOMENTS.index(_STORED.get(q, q)) for q in SHOWN)
_SHOWN_SQUARES = tuple(MOMENTS.index(f"{q}_sq") for q in SHOWN)
_CLICKED_X, _CONVERTED_X, _LATENCY_X = (
    MOMENTS.index(f"{q}_impressions") for q in ("clicked_x", "converted_x", "latency_x_timed")
)
A, E, F = 0, len(AS_ASSIGNED), len(AS_ASSIGNED) + len(AS_EXPOSED)  # where the groups begin
FORETELLS_NOTHING, FORETELLS_CLICKS, FORETELLS_CONVERSIONS, FORETELLS_REVENUE, FORETELLS_DECLARED = range(5)


@njit
def _foretold(z, clicks, declared, what):
    """The quantity that pre_value foretells, of those just filled in (capped revenue stands two behind clicks + 1)."""
    if what == FORETELLS_NOTHING:
        return np.int64(0)
    if what == FORETELLS_CLICKS:
        return z[clicks]
    if what == FORETELLS_CONVERSIONS:
        return z[clicks + 1]
    if what == FORETELLS_REVENUE:
        return z[clicks + 3]
    return z[declared + what - FORETELLS_DECLARED]


@njit
def quantities(z, s, own, declared, row, cap, what):
    """Fill z with the quantities of one user in an experiment. s: a row of `assigned`, or what it was.

    own: whether the row holds sums. declared: int64 (rows, 2 * DECLARED), or without rows. cap: of revenue a user.
    """
    z[:] = 0
    if s.experiment < 0:
        return
    z[F + 0] = 1 if s.flags & MIXED and s.flags & EARLIEST else 0
    z[F + 1] = s.mixed_events
    z[F + 2] = s.before
    if not own or s.flags & EXCLUDED:
        return
    z[F + 3] = s.foreign
    with_declared = declared.shape[0] > row
    z[A] = 1
    z[A + 1] = s.clicks
    z[A + 2] = s.conversions
    z[A + 3] = s.revenue
    z[A + 4] = min(np.int64(s.revenue), cap)
    z[A + 5] = 1 if s.conversions > 0 else 0
    z[A + 6] = s.pre_value
    if with_declared:
        for k in range(DECLARED):
            z[A + 7 + k] = declared[row, k]
    z[A + 7 + DECLARED] = _foretold(z, A + 1, A + 7, what)
    if s.impressions <= 0:
        return
    z[E] = 1
    z[E + 1] = s.impressions
    z[E + 2] = s.clicked
    z[E + 3] = s.converted
    z[E + 4] = s.latency
    z[E + 5] = s.timed
    z[E + 6] = s.clicks - s.early_clicks
    z[E + 7] = s.conversions - s.early_conversions
    z[E + 8] = s.revenue - s.early_revenue
    z[E + 9] = min(np.int64(z[E + 8]), cap)
    z[E + 10] = 1 if z[E + 7] > 0 else 0
    z[E + 11] = s.pre_value
    if with_declared:
        for k in range(DECLARED):
            z[E + 12 + k] = declared[row, k] - declared[row, DECLARED + k]
    z[E + 12 + DECLARED] = _foretold(z, E + 6, E + 12, what)


@njit
def add_change(sums, row, old, new):
    """Add to a row of sums what follows from a vector's change."""
    bits = np.int64(0)
    for q in range(N):
        bits |= (old[q] ^ (old[q] >> 63)) | (new[q] ^ (new[q] >> 63))
    small = bits < SMALL
    for q in range(N):
        if old[q] == new[q]:
            continue
        for k in range(WITH.shape[1]):
            pair = WITH[q, k]
            if pair < 0:
                break
            a = PAIRS[pair, 0]
            b = PAIRS[pair, 1]
            if b < 0:
                add128(sums, row, pair, new[a] - old[a])
            elif q == a or old[a] == new[a]:  # once, where both changed
                if small:
                    change = new[a] * new[b] - old[a] * old[b]
                    if change != 0:
                        add128(sums, row, pair, change)
                else:
                    add_product128(sums, row, pair, new[a], new[b])
                    add_product128(sums, row, pair, -old[a], old[b])


@njit
def is_short(old, new):
    """Whether add_shown says what follows from a change of SHOWN in a row of `assigned`: nearly always.

    old: a row of `seen`, of a user who was exposed. Products of two of SHOWN fit into one word then.
    """
    return new.impressions > 0 and (old.latency | new.latency) < SMALL


@njit
def add_shown(sums, row, old, new):
    """As add_change for two states that differ in SHOWN alone, where is_short."""
    x0 = (np.int64(old.impressions), np.int64(old.clicked), np.int64(old.converted), np.int64(old.latency),
          np.int64(old.timed))  # fmt: skip
    x1 = (np.int64(new.impressions), np.int64(new.clicked), np.int64(new.converted), np.int64(new.latency),
          np.int64(new.timed))  # fmt: skip
    for k in range(len(SHOWN)):
        add128(sums, row, _SHOWN_SUMS[k], x1[k] - x0[k])
        add128(sums, row, _SHOWN_SQUARES[k], x1[k] * x1[k] - x0[k] * x0[k])
    add128(sums, row, _CLICKED_X, x1[1] * x1[0] - x0[1] * x0[0])
    add128(sums, row, _CONVERTED_X, x1[2] * x1[0] - x0[2] * x0[0])
    add128(sums, row, _LATENCY_X, x1[3] * x1[4] - x0[3] * x0[4])
