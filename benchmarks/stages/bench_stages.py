"""`make bench-stages`: each stage as a benchmark of pytest-benchmark, seconds of CPU for all events of a round.

`ARGS=--benchmark-autosave` keeps the figures, `ARGS="--benchmark-compare --benchmark-compare-fail=min:10%"` fails with
the name of the stage that became slower. `--scale` and `--rounds` say how much is measured.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.stages.budget import STAGES, Stage
from benchmarks.stages.measure import Round


class Played:
    """A timer that goes forward by what a stage took in each round that was run."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


PLAYED = Played()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name.replace(" ", "-"))
@pytest.mark.benchmark(group="CPU seconds of a round", timer=PLAYED)
def test_stage(stage: Stage, rounds: Sequence[Round], benchmark: Any) -> None:
    taken = [each.seconds.get(stage.name, 0.0) for each in rounds]
    waiting = iter(taken)

    def play() -> None:
        PLAYED.seconds += next(waiting)

    benchmark.pedantic(play, rounds=len(taken))
    benchmark.extra_info["cpu_us_per_event"] = min(each.us(stage.name) for each in rounds)
    benchmark.extra_info["budget_us"] = stage.budget_us
