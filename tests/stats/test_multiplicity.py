import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stream.stats.multiplicity import benjamini_hochberg, bonferroni

p_values = st.lists(st.floats(0, 1), max_size=20)


@given(p_values.filter(len))
def test_benjamini_hochberg_is_that_of_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p).tolist(), rel=1e-12)


@given(p_values)
def test_bonferroni_is_the_stricter(p: list[float]) -> None:
    for raw, found, strict in zip(p, benjamini_hochberg(p), bonferroni(p), strict=True):
        assert raw <= found * (1 + 1e-15)
        assert found <= strict * (1 + 1e-15)


def test_bonferroni_multiplies_by_the_number_of_tests() -> None:
    assert bonferroni([0.01, 0.4, 0.02]) == pytest.approx([0.03, 1, 0.06])


def test_no_tests_need_no_adjustment() -> None:
    assert bonferroni([]) == benjamini_hochberg([]) == []
