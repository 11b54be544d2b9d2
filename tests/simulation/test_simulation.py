import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import simulate

SEEDS = 200
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(1, SEEDS + 1, 20))
def test_the_worker_equals_the_oracle_whatever_breaks(first: int) -> None:
    broken = {seed: end.broken for seed in range(first, first + 20) if (end := simulate(seed)).broken}
    assert not broken, "make simulate-faults FIRST=<seed> ARGS=--told tells what happened"


def test_a_seed_repeats_itself_exactly() -> None:
    """In another process too, where sets and dictionaries of texts have another order."""
    here = simulate(SEEDS)
    there = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--first", str(SEEDS), "--told"],
        cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"trace {here.trace:08x}" in there.stdout


def test_seeds_differ() -> None:
    assert len({simulate(seed).trace for seed in range(1, 5)}) == 4
