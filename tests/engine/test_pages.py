"""Tables in huge pages are tables; a process that counts keeps what it needs again."""

import ctypes
import mmap
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import heap
from stream.contracts.definitions import Definitions
from stream.engine import index, pages, tables
from stream.engine.engine import Engine
from stream.engine.rows import Rows, with_room
from tests.engine.makers import KEY, Run, an_assignment, an_impression, an_interaction

PROGRAM = """
import numpy as np
from stream.heap import give_back, use_again

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

LIMITED = """
import resource, sys
import numpy as np
from stream.engine.pages import enlarged, growing_zeros

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(getattr(resource, sys.argv[1]), (used + (500 << 20), -1))
tables = [growing_zeros((20 << 20,), np.uint8) for _ in range(10)]  # the first one's reserve would fit
assert enlarged(tables[0], 21 << 20) is None
assert tables[0].ctypes.data % 4096 == 0, "a row of two lines of a cache may not be in three"
"""

HEAPS = """
import ctypes, sys, threading
from stream.cli import main

try:
    main(["worker", "--help"])
except SystemExit:
    pass
import numpy as np
import pyarrow as pa

assert pa.default_memory_pool().backend_name == "system", "Arrow was imported before the heap was set up"
threads = [threading.Thread(target=np.ones, args=(1 << 20,)) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(c.fopen(sys.argv[1].encode(), b"w"))
c.malloc_info(0, out)
c.fclose(out)
"""

HUGE_EXIST = Path("/sys/kernel/mm/transparent_hugepage").exists()
RESERVES = pages._are_addresses_free()  # on this machine
needs_reserves = pytest.mark.skipif(not RESERVES, reason="addresses are limited here, or counted as memory")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc")
def test_all_threads_of_a_worker_share_one_heap(tmp_path: Path) -> None:
    result = tmp_path / "heaps.xml"
    program = [sys.executable, "-c", HEAPS, str(result)]
    subprocess.run(program, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert result.read_text().count("<heap nr=") == 1


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
    assert np.shares_memory(larger, table) == (RESERVES and times <= reserve)


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


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.int64]:
    """Ten rows over memory for 160."""
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    table = pages.growing_zeros((10,), np.int64)
    table[:] = range(1, 11)
    return table


@needs_reserves
def test_views_of_a_growing_table_are_copied(growing: npt.NDArray[np.int64]) -> None:
    for view in (growing[:5], growing[5:], growing[::2], growing[:], growing.view(np.int32)):
        assert pages.enlarged(view, 20) is None
        assert index.grown(view, 20).tolist() == view.tolist() + [0] * (20 - len(view))
    assert pages.enlarged(growing, 20) is not None


@needs_reserves
def test_only_the_newest_table_over_its_memory_grows_and_never_shrinks(
    growing: npt.NDArray[np.int64],
) -> None:
    larger = pages.enlarged(growing, 20)
    assert larger is not None
    larger[10:] = 7
    assert pages.enlarged(growing, 30) is None
    assert index.grown(growing, 30).tolist() == [*range(1, 11)] + [0] * 20
    assert pages.enlarged(larger, 19) is None
    assert index.grown(larger, 30).tolist() == [*range(1, 11)] + [7] * 10 + [0] * 10


@needs_reserves
@pytest.mark.parametrize("dtype", [np.dtype([("a", "i4"), ("b", "u1", 3)]), np.dtype("f8")])
def test_a_table_becomes_huge_where_it_is(dtype: np.dtype[np.void], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    monkeypatch.setattr(pages, "HUGE_BYTES", 1 << 20)
    rows = (1 << 19) // dtype.itemsize
    table = pages.growing_zeros((rows,), dtype)
    table.view(np.uint8)[:] = 255
    before = table.copy()
    larger = index.grown(table, 9 * rows)
    assert larger.nbytes > pages.HUGE_BYTES > table.nbytes
    assert larger.ctypes.data == table.ctypes.data
    assert larger.dtype == dtype
    assert larger[:rows].tobytes() == before.tobytes()
    assert not larger[rows:].view(np.uint8).any()
    assert not HUGE_EXIST or "hg" in advice_at(larger.ctypes.data)


def advice_at(address: int) -> list[str]:
    """What the system was told of the mapping around an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(match[1], 16) <= address < int(match[2], 16)
        if here and line.startswith("VmFlags:"):
            return line.split()
    return []


@pytest.mark.parametrize(
    "owner",
    [bytearray(b"7" * 800), memoryview(b"7" * 800), np.full(800, 7, np.uint8), mmap.mmap(-1, 800)],
)
@pytest.mark.parametrize("skipped", [0, 80])
def test_a_table_over_memory_of_others_is_copied(
    owner: bytearray | memoryview | npt.NDArray[np.uint8] | mmap.mmap, skipped: int
) -> None:
    if isinstance(owner, mmap.mmap):
        owner[:] = b"7" * len(owner)
    table = np.ndarray((10,), np.int64, buffer=owner, offset=skipped)
    for whole in (table, table[:], table.reshape(5, 2), np.frombuffer(owner, np.int64, 10, skipped)):
        assert pages.enlarged(whole, 20) is None
        larger = index.grown(whole, 20)
        assert np.array_equal(larger[: len(whole)], whole)
        assert not larger[len(whole) :].any()


@pytest.mark.parametrize(
    ("reserve", "error"), [(1 << 45, OSError), (1 << 59, OverflowError)], ids=["no addresses", "no number"]
)
def test_where_the_system_reserves_nothing_a_table_is_copied(
    reserve: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error):
        mmap.mmap(-1, 80 * reserve)
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    monkeypatch.setattr(pages, "RESERVE", reserve)
    table = pages.growing_zeros((10,), np.int64)
    table[:] = 5
    assert pages.enlarged(table, 20) is None
    assert index.grown(table, 20).tolist() == [5] * 10 + [0] * 10


@needs_reserves
def test_ten_times_the_memory_of_the_machine_can_be_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(pages, "RESERVE", 10 * machine // pages.GROWING_BYTES)
    before = resident()
    table = pages.growing_zeros((pages.GROWING_BYTES,), np.uint8)
    larger = pages.enlarged(table, 9 * machine)
    assert larger is not None
    larger[-1] = 1
    assert resident() < before + (64 << 20)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is reserved")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_tables_reserve_nothing_where_addresses_are_limited(limit: str) -> None:
    subprocess.run([sys.executable, "-c", LIMITED, limit], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is reserved")
@pytest.mark.parametrize(
    ("machine", "limited", "mode", "free"),
    [
        ("x86_64", None, "0", True),
        ("aarch64", None, "1", True),
        ("x86_64", None, "2", False),
        ("x86_64", None, None, False),
        ("x86_64", resource.RLIMIT_AS, "0", False),
        ("x86_64", resource.RLIMIT_DATA, "0", False),
        ("x86_64", resource.RLIMIT_NOFILE, "0", True),
        ("ppc64le", None, "0", False),
    ],
)
def test_addresses_are_reserved_only_where_they_cost_nothing(
    machine: str,
    limited: int | None,
    mode: str | None,
    free: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    endless = resource.RLIM_INFINITY
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(
        resource, "getrlimit", lambda limit: (1 << 30 if limit == limited else endless, endless)
    )
    monkeypatch.setattr(pages, "_OVERCOMMIT", tmp_path / "overcommit_memory")
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    if mode is not None:
        (tmp_path / "overcommit_memory").write_text(mode + "\n")
    assert (pages.enlarged(pages.growing_zeros((10,), np.int64), 20) is not None) == free


@needs_reserves
def test_nothing_is_given_back_for_tables_that_grow_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(heap, "give_back", lambda: given.append(True))
    monkeypatch.setattr(tables, "MUCH_BYTES", 1)
    monkeypatch.setattr(tables, "LARGE_BYTES", 1)
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    store = tables.Store({"arena": pages.growing_zeros((1 << 10,), np.uint8)})
    store.put(arena=index.grown(store.a["arena"], 1 << 11))
    store.give_back()
    assert not given
    store.put(arena=index.grown(store.a["arena"], 1 << 20))  # more than is reserved
    store.give_back()
    assert given


def as_stored(rows: Rows) -> Rows:
    """As they come out of a snapshot."""
    first = rows.parts[0][1]
    room = with_room(tuple((number, len(part)) for number, part in rows.parts), first.dtype, first.shape[1:])
    for (_, empty), (_, part) in zip(room.parts, rows.parts, strict=True):
        empty[:] = part
    return room


@needs_reserves
@pytest.mark.parametrize("brought", [as_stored, lambda rows: rows], ids=["stored", "of another engine"])
def test_tables_of_a_loaded_engine_grow_where_they_are(
    brought: Callable[[Rows], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    by_item = an_interaction(impression_id=None, item_id="x")
    run.step(assignments=[an_assignment()], impressions=[an_impression()], interactions=[by_item])
    monkeypatch.setattr(pages, "GROWING_BYTES", 1)
    export = {name: brought(rows) for name, rows in run.engine.export().items()}
    store = Engine.load(export, key=KEY, partition=0, partitions=1, definitions=Definitions())._store
    before = {name: (len(array), array.ctypes.data) for name, array in store.a.items()}
    store.room_for_users(2_000)
    store.room_for_ids(2_000)
    store.room_for_impressions(2_000)
    store.room_for_interactions(2_000)
    store.room_for_assignments(2_000, 2_000)
    in_place = {
        name
        for name, array in store.a.items()
        if len(array) > before[name][0] and array.ctypes.data == before[name][1]
    }
    assert in_place == {
        "users", "user_keys", "user_tags", "id_keys", "id_tags", "imps", "imp_keys", "imp_tags", "imp_nodes", "ints",
        "int_keys", "int_tags", "int_nodes", "assigned", "arena",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_memory_of_a_step_is_kept_and_that_of_large_tables_is_not() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
