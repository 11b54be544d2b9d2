"""Users and moments for tests."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from stream.stats.estimates import Estimate
from stream.stats.moments import Moments

User = tuple[int, int, int]

users = st.lists(
    st.tuples(st.integers(-50, 10_000), st.integers(0, 10_000), st.integers(-1_000, 1_000)),
    min_size=2,
    max_size=40,
)
seeds = st.integers(0, 2**32 - 1)


def moments_of(arm: list[User]) -> Moments:
    return sum((Moments.of_user(*user) for user in arm), Moments())


def random_arm(random: np.random.Generator) -> Moments:
    """Up to 5,000 users whose x, y and p go together, with spreads from tame to wild."""
    n = int(random.integers(5, 5_000))
    p = random.negative_binomial(random.uniform(0.3, 5), 0.1, n)
    y = 1 + random.poisson(random.uniform(0.5, 20) * random.gamma(2, 1, n))
    x = random.binomial(y, random.uniform(0.01, 0.6)) + random.poisson(0.1 * p)
    x[0] += 1
    return moments_of_columns(x, y, p)


def moments_of_columns(x: np.ndarray, y: np.ndarray, p: np.ndarray | None = None) -> Moments:
    x, y = x.astype(np.int64), y.astype(np.int64)
    p = np.zeros_like(x) if p is None else p.astype(np.int64)
    return Moments(len(x), *(int(s) for s in (x.sum(), x @ x, y.sum(), y @ y, x @ y, p.sum(), p @ p, x @ p)))


def an_estimate(value: float = 0.1, se: float = 0.01, n: int = 1_000) -> Estimate:
    return Estimate(n, Fraction(value), Fraction(se) ** 2)
