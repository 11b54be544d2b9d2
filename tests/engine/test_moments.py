"""The sums over users follow a change of one user exactly, whatever the size of the numbers."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numba import njit

from stream.engine.assigned import touch, touch_seen
from stream.engine.layout import ASSIGNED, DECLARED, SEEN, SEEN_ROWS, TOUCHED
from stream.engine.moments import (
    MOMENTS,
    PAIRS,
    SMALL,
    N,
    add_change,
    add_shown,
    is_short,
    quantities,
)
from stream.engine.primitives import int128_of
from stream.engine.tables import Store

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


def seen_of(row: np.ndarray) -> np.ndarray:
    seen = np.zeros(1, SEEN)
    for name in SHOWN_FIELDS:
        seen[name] = row[name]
    return seen


@given(before=SHOWN_CHANGES, after=SHOWN_CHANGES, what=st.integers(0, 3))
def test_the_short_way_for_impressions_adds_the_same(
    before: dict[str, int], after: dict[str, int], what: int
) -> None:
    old, new = (row_of(KNOWN_FIELDS | changes) for changes in (before, after))
    assume(old["impressions"][0] > 0)
    small = bool(old["latency"][0] < SMALL and new["latency"][0] < SMALL)
    assert is_short(seen_of(old)[0], new[0]) == (small and bool(new["impressions"][0] > 0))
    if is_short(seen_of(old)[0], new[0]):
        sums = np.zeros((1, len(MOMENTS), 2), np.int64)
        add_shown(sums, 0, seen_of(old)[0], new[0])
        np.testing.assert_array_equal(sums, sums_of_change(old, new, what))


@njit
def keep(t, row, only_shown):  # type: ignore[no-untyped-def]
    if only_shown:
        touch_seen(t, row)
    else:
        touch(t, row)


def test_a_row_of_which_more_changes_than_impressions_is_kept_as_it_was_before_the_step() -> None:
    store = Store()
    store.a["assigned"][3] = before = row_of(KNOWN_FIELDS)[0]
    keep(store.tables(), 3, True)
    for name in SHOWN_FIELDS:
        store.a["assigned"][name][3] += 7
    keep(store.tables(), 3, True)
    assert (store.m[SEEN_ROWS], store.m[TOUCHED]) == (1, 0)
    keep(store.tables(), 3, False)
    store.a["assigned"]["clicks"][3] += 1
    keep(store.tables(), 3, False)
    keep(store.tables(), 3, True)
    assert (store.m[SEEN_ROWS], store.m[TOUCHED]) == (1, 1)
    assert store.a["seen"]["row"][0] == -1
    kept = store.a["before"][0].copy()
    kept["touched"] = before["touched"]
    assert kept == before
    assert (store.a["before_row"][0], store.a["assigned"]["touched"][3]) == (3, 1)


@pytest.mark.parametrize("field", ["impressions", "declared"])
def test_a_row_is_kept_whole_when_its_user_is_not_exposed_yet_or_metrics_are_declared(field: str) -> None:
    store = Store()
    store.a["assigned"][3] = row_of(KNOWN_FIELDS | ({"impressions": 0} if field == "impressions" else {}))[0]
    if field == "declared":
        store.put(
            declared=np.zeros((8, 2 * DECLARED), np.int64),
            before_declared=np.zeros((8, 2 * DECLARED), np.int64),
        )
    keep(store.tables(), 3, True)
    assert (store.m[SEEN_ROWS], store.m[TOUCHED]) == (0, 1)
