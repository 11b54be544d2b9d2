"""The promise under continuous looks, in short; `make validity` is the long form."""

import math

import pytest

from benchmarks.validity.traffic import Shape
from benchmarks.validity.trials import ALPHA, Share, sample_ratios, trials

RUNS = 120
SMALL = Shape(users=1_500, looks=30)


def test_always_valid_intervals_keep_their_promise_where_others_break_it() -> None:
    alarms = dict.fromkeys(("naive", "fixed", "always"), 0)
    for trial in trials(SMALL, range(RUNS), ("ctr",)):
        for method in alarms:
            alarms[method] += bool(trial["ctr"].found(method).any())
    # Monte-Carlo error of a true 5 % at 120 runs: 2.0 points.
    error = math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
    assert alarms["always"] / RUNS <= ALPHA + 2 * error
    assert alarms["fixed"] / RUNS > ALPHA + 4 * error
    assert alarms["naive"] > alarms["fixed"]


def test_planted_effects_are_covered_at_all_looks_and_found() -> None:
    shape = Shape(users=1_500, looks=30, lift=0.6)
    covered, found = 0, 0
    for trial in trials(shape, range(RUNS // 2), ("ctr",)):
        covered += bool(trial["ctr"].covers("always", shape.difference).all())
        found += bool(trial["ctr"].found("always").any())
    # Monte-Carlo error of a true 95 % at 60 runs: 2.8 points.
    assert covered / (RUNS // 2) >= 0.95 - 2 * 0.028
    assert found / (RUNS // 2) > 0.8


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 0, 0.01), (0.53, 0.99, 1)])
def test_the_sequential_sample_ratio_flags_only_what_is_broken(
    share: float, least: float, most: float
) -> None:
    flagged = sum(
        any((look.p_sequential or 0) < 0.001 for look in looks)
        for looks in sample_ratios(share, range(100), users=20_000, looks=50)
    )
    assert least <= flagged / 100 <= most


def test_a_share_of_runs_says_its_error() -> None:
    assert str(Share(50, 1_000)) == "5.0 % ± 0.7"
    assert Share(0, 100).error > 0
