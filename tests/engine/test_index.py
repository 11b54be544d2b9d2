"""Hash indexes by 128-bit id."""

import numpy as np
from numba import njit

from stream.engine.index import MAX_LOAD, find, likely_place, slots_of_rows
from stream.engine.primitives import U32, U64

ROWS = 1 << 14


@njit
def places(slots, keys, firsts, seconds, found, likely):  # type: ignore[no-untyped-def]
    for i in range(len(firsts)):
        found[i] = find(slots, keys, 0, len(keys), firsts[i], seconds[i])[0]
        likely[i] = likely_place(slots, keys, firsts[i])


def test_the_likely_place_of_an_id_is_nearly_always_where_it_stands_however_full_the_index() -> None:
    rng = np.random.default_rng(1)
    tags = rng.integers(0, 1 << 32, ROWS, np.uint32)
    keys = rng.integers(0, 1 << 63, ROWS).astype(np.uint64)
    slots = np.zeros(int(ROWS / MAX_LOAD) + 1, np.uint64)
    slots_of_rows(tags, keys, np.zeros(0, np.bool_), 0, ROWS, slots)
    found, likely = np.zeros(ROWS, np.int64), np.zeros(ROWS, np.int64)
    places(slots, keys, tags.astype(np.uint64) << U32, keys, found, likely)
    np.testing.assert_array_equal(found[1:], np.arange(1, ROWS))  # link 0 names no row
    assert np.mean(found[1:] == likely[1:]) > 0.9


def test_a_likely_place_is_a_row_for_ids_that_are_unknown_and_at_the_end_of_the_slots() -> None:
    keys = np.zeros(8, np.uint64)
    slots = np.full(3, (U64(5) << U32) | U64(0xFFFFFFFF))
    firsts = np.array([0, 5 << 32, 2**64 - 1], np.uint64)
    found, likely = np.zeros(3, np.int64), np.zeros(3, np.int64)
    places(slots, keys, firsts, np.zeros(3, np.uint64), found, likely)
    assert set(likely.tolist()) <= set(range(8))
