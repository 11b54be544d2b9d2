"""Tables in huge pages are tables; a process that counts keeps what it needs again."""

import mmap
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.engine import index, pages

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


@given(
    rows=st.integers(1, 64),
    times=st.integers(1, 64),
    tail=st.sampled_from([(), (3,)]),
    reserve=st.integers(1, 16),
)
def test_a_table_that_becomes_larger_where_it_is_equals_a_copy(
    rows: int, times: int, tail: tuple[int, ...], reserve: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "GROWING_BYTES", 1)
        patch.setattr(pages, "RESERVE", reserve)
        table = pages.growing_zeros((rows, *tail), np.int64)
        table[:] = np.arange(table.size).reshape(table.shape)
        before = table.copy()
        larger = index.grown(table, rows * times)
    assert np.array_equal(larger[:rows], before)
    assert not larger[rows:].any()
    assert larger.shape == (rows * times, *tail)
    assert np.shares_memory(larger, table) == (times <= reserve)


@given(
    bits=st.integers(0, 6), more=st.integers(1, 3), base=st.integers(0, (1 << 32) - 1), share=st.floats(0, 1),
    reserve=st.sampled_from([1, 16]),
)  # fmt: skip
def test_a_ring_that_becomes_larger_has_each_row_where_its_link_says(
    bits: int, more: int, base: int, share: float, reserve: int
) -> None:
    old, new = 1 << bits, 1 << (bits + more)
    links = (base + np.arange(round(old * share))) & index.LINK_MASK
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "GROWING_BYTES", 1)
        patch.setattr(pages, "RESERVE", reserve)
        ring = pages.growing_zeros((old,), np.int64)
        ring[links & (old - 1)] = links + 1
        larger = index.grown_ring(ring, new, base, len(links))
    assert len(larger) == new
    assert np.array_equal(larger[links & (new - 1)], links + 1)


def test_a_small_table_reserves_nothing() -> None:
    assert pages.enlarged(pages.growing_zeros((10,), np.int64), 20) is None


@pytest.mark.parametrize("owner", [bytearray(80), memoryview(bytes(80)), mmap.mmap(-1, 80)])
def test_a_table_over_memory_of_others_is_copied(owner: bytearray | memoryview | mmap.mmap) -> None:
    table = np.frombuffer(owner, np.int64)
    for whole in (table, table[:], table.reshape(5, 2)):
        assert pages.enlarged(whole, 20) is None
        assert len(index.grown(whole, 20)) == 20


def test_where_the_system_reserves_nothing_a_table_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    monkeypatch.setattr(pages, "RESERVE", 1 << 60)
    table = pages.growing_zeros((10,), np.int64)
    table[:] = 5
    assert pages.enlarged(table, 20) is None
    assert index.grown(table, 20).tolist() == [5] * 10 + [0] * 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_memory_of_a_step_is_kept_and_that_of_large_tables_is_not() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
