from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.stats.moments import Moments
from tests.stats.makers import User, moments_of, users


@given(users, st.integers(0, 40))
def test_the_sum_of_the_parts_is_the_whole(everybody: list[User], cut: int) -> None:
    first, second = moments_of(everybody[:cut]), moments_of(everybody[cut:])
    assert first + second == moments_of(everybody)
    assert moments_of(everybody) - second == first


@given(users)
def test_moments_of_real_users_are_possible(everybody: list[User]) -> None:
    assert moments_of(everybody).impossible() is None


@given(users)
def test_centred_products_are_those_of_the_definition(everybody: list[User]) -> None:
    moments, n = moments_of(everybody), len(everybody)
    mean_x, mean_y = (Fraction(sum(user[i] for user in everybody), n) for i in (0, 1))
    assert moments.cxx == n * sum((x - mean_x) ** 2 for x, _, _ in everybody)
    assert moments.cxy == n * sum((x - mean_x) * (y - mean_y) for x, y, _ in everybody)


def test_squares_that_overflowed_are_impossible() -> None:
    # 200 users with 12 clicks each, squared in 8 bits: 144 became -112.
    assert Moments(200, 2_400, -112 * 200).impossible() == (
        "sxx",
        "is impossible: n * sxx must be at least sx squared",
    )


@pytest.mark.parametrize(
    ("moments", "name"),
    [
        (Moments(n=-1), "n"),
        (Moments(n=0, sx=1), "sx"),
        (Moments(n=2, sx=3, sxx=4), "sxx"),
        (Moments(n=2, sy=3, syy=4), "syy"),
        (Moments(n=2, sp=3, spp=4), "spp"),
        (Moments(n=2, sxx=1, syy=1, sxy=2), "sxy"),
        (Moments(n=2, sxx=1, spp=1, sxp=-2), "sxp"),
    ],
)
def test_sums_that_no_users_have_are_named(moments: Moments, name: str) -> None:
    wrong = moments.impossible()
    assert wrong is not None
    assert wrong[0] == name


def test_sums_rounded_elsewhere_are_forgiven() -> None:
    # Three users with x = 0.1 each, added up in floating point.
    assert Moments(3, Fraction("0.30000000000000004"), Fraction("0.03")).impossible() is None
    assert Moments(3, Fraction("0.3"), Fraction("0.02")).impossible() is not None


def test_sums_beyond_any_machine_word_stay_exact() -> None:
    assert Moments.of_user(10**15).sxx == 10**30
