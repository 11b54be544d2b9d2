"""Tables in huge pages are tables; a process that counts keeps what it needs again."""

import subprocess
import sys

import numpy as np
import pytest

from stream.engine import pages

PROGRAM = """
import numpy as np
from stream.engine.pages import give_back, use_again

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

use_again()
step = np.ones(200 << 20, np.uint8)  # mapped by itself, for it is large
pieces = [np.ones(10 << 20, np.uint8) for _ in range(10)]
before = rss()
del step
assert rss() < before - (190 << 20)
before = rss()
del pieces
assert rss() > before - (10 << 20), "pieces of a step must stay"
give_back()
assert rss() < before - (90 << 20)
"""


@pytest.mark.parametrize("rows", [0, 10, 1_000])
def test_a_large_table_is_zero_and_can_be_written(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "HUGE_BYTES", 4_000)
    table = pages.zeros((rows, 2), np.int64)
    assert table.shape == (rows, 2)
    assert not table.any()
    table[:] = 7
    assert (table == 7).all()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_memory_of_a_step_is_kept_and_that_of_large_tables_is_not() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
