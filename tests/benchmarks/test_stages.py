import time
from collections import Counter

import pytest

from benchmarks.stages.budget import NETWORK_US, STAGES, TOTAL_US
from benchmarks.stages.clock import StageClock, resolve
from benchmarks.stages.measure import Round, measure


@pytest.fixture(scope="module")
def small() -> Round:
    return measure(0.02, rounds=1)[0]


@pytest.mark.parametrize("place", [place for stage in STAGES for place in stage.functions])
def test_every_function_of_the_budget_is_there(place: str) -> None:
    owner, name = resolve(place)
    assert callable(getattr(owner, name))


def test_a_function_that_is_gone_is_named() -> None:
    with pytest.raises(LookupError, match=r"stream\.engine\.engine:gone is gone"):
        resolve("stream.engine.engine:gone")


def test_a_function_belongs_to_one_stage_and_the_budgets_add_up() -> None:
    places = Counter(place for stage in STAGES for place in stage.functions)
    assert max(places.values()) == 1
    assert sum(stage.budget_us for stage in STAGES) + NETWORK_US == pytest.approx(TOTAL_US)


def test_the_stages_cover_what_a_worker_does(small: Round) -> None:
    assert small.steps >= 4
    assert {stage.name for stage in STAGES} == set(small.seconds)
    assert small.rest_us < small.total_us / 3  # of a small run; a large one leaves less than a tenth


def test_a_stage_is_charged_for_what_it_does_itself() -> None:
    clock = StageClock()

    def burn() -> None:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    inner = clock.timed("inner", burn)
    clock.timed("outer", lambda: (burn(), inner(), inner()))()
    assert clock.seconds["outer"] == pytest.approx(0.02, rel=0.3)
    assert clock.seconds["inner"] == pytest.approx(0.04, rel=0.3)


def test_a_stage_that_raises_is_not_charged_for_what_comes_after() -> None:
    clock = StageClock()

    def fail() -> None:
        raise LookupError("as planned")

    with pytest.raises(LookupError, match="as planned"):
        clock.timed("failing", fail)()
    burn = clock.timed("after", lambda: sum(range(100_000)))
    burn()
    assert clock.seconds["failing"] < clock.seconds["after"]
