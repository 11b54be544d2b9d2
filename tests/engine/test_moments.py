"""The sums over users follow a change of one user exactly, whatever the size of the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.engine.layout import ASSIGNED, DECLARED, EARLIEST, EXCLUDED, MIXED
from stream.engine.moments import (
    MOMENTS,
    PAIRS,
    SMALL,
    N,
    add_change,
    add_shown,
    only_shown,
    quantities,
)
from stream.engine.primitives import int128_of

EDGES = [0, 1, -1, int(SMALL) - 1, int(SMALL), -int(SMALL), -int(SMALL) - 1, 10**12, -(10**12), 2**40]
NUMBERS = st.sampled_from(EDGES) | st.integers(-(2**31), 2**31)
VECTORS = st.lists(NUMBERS, min_size=N, max_size=N)


def moments(vector: list[int]) -> list[int]:
    return [vector[a] if b < 0 else vector[a] * vector[b] for a, b in PAIRS.tolist()]


@given(old=VECTORS, changes=st.dictionaries(st.integers(0, N - 1), NUMBERS, max_size=8))
def test_a_change_is_the_new_moments_less_the_old_ones(old: list[int], changes: dict[int, int]) -> None:
    new = [changes.get(place, value) for place, value in enumerate(old)]
    sums = np.zeros((1, len(MOMENTS), 2), np.int64)
    add_change(sums, 0, np.array(old), np.array(new))
    added = [int128_of(words) for words in sums[0]]
    assert added == [after - before for before, after in zip(moments(old), moments(new), strict=True)]


SHOWN_FIELDS = ("impressions", "clicked", "converted", "latency", "timed")
KNOWN_FIELDS = {
    "experiment": 1,
    "own": 0,
    "impressions": 3,
    "clicked": 1,
    "latency": 90,
    "timed": 2,
    "revenue": 700,
}
COUNTS = st.sampled_from([0, 1, 2, 5, 2**31 - 1])
LATENCIES = st.sampled_from([0, 1, 80, int(SMALL) - 1, int(SMALL), 2**40])

# Of these follow no quantities: what decides about cohorts, links, the assignment's event_id, and the mark of a
# touched row.
UNSUMMED = {
    "at",
    "exposed_at",
    "id_pos",
    "id_len",
    "next",
    "touched",
    "days",
    "exposed_days",
    "unused",
}
NO_DECLARED = np.zeros((0, 2 * DECLARED), np.int64)


def row_of(fields: dict[str, int]) -> np.ndarray:
    rows = np.zeros(1, ASSIGNED)
    for name, value in fields.items():
        rows[name] = value
    return rows


def sums_of_change(old: np.ndarray, new: np.ndarray, what: int) -> np.ndarray:
    vectors = np.zeros((2, N), np.int64)
    for vector, rows in zip(vectors, (old, new), strict=True):
        quantities(vector, rows[0], rows["own"][0] == 0, NO_DECLARED, 0, 500, what)
    sums = np.zeros((1, len(MOMENTS), 2), np.int64)
    add_change(sums, 0, *vectors)
    return sums


SHOWN_CHANGES = st.fixed_dictionaries(
    {}, optional={name: LATENCIES if name == "latency" else COUNTS for name in SHOWN_FIELDS}
)


@given(before=SHOWN_CHANGES, after=SHOWN_CHANGES, what=st.integers(0, 3))
def test_the_short_way_for_impressions_adds_the_same(
    before: dict[str, int], after: dict[str, int], what: int
) -> None:
    old, new = (row_of(KNOWN_FIELDS | changes) for changes in (before, after))
    exposed = bool(old["impressions"][0] > 0 and new["impressions"][0] > 0)
    small = bool(old["latency"][0] < SMALL and new["latency"][0] < SMALL)
    assert only_shown(old[0], new[0], 0) == (exposed and small)
    if exposed and small:
        sums = np.zeros((1, len(MOMENTS), 2), np.int64)
        add_shown(sums, 0, old[0], new[0])
        np.testing.assert_array_equal(sums, sums_of_change(old, new, what))


@pytest.mark.parametrize("name", [name for name in ASSIGNED.names or () if name not in SHOWN_FIELDS])
def test_the_short_way_is_not_taken_when_anything_else_that_is_summed_changes(name: str) -> None:
    old = row_of(KNOWN_FIELDS)
    for value in (1, 8, EXCLUDED, MIXED | EARLIEST):
        new = row_of(KNOWN_FIELDS | {name: KNOWN_FIELDS.get(name, 0) ^ value})
        if only_shown(old[0], new[0], 0):
            assert not sums_of_change(old, new, 0).any(), name
            assert name in UNSUMMED
