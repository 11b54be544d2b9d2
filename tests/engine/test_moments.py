"""The sums over users follow a change of one user exactly, whatever the size of the numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.engine.moments import MOMENTS, PAIRS, SMALL, N, add_change
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
