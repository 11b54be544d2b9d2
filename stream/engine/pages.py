"""Memory pages: new ones are dear, for the kernel clears them, and a virtual machine's host must find them first."""

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

# From here on huge pages spare a quarter of the cost of looking up what is anywhere in a table. Smaller arrays come and
# go with each step, and a new huge page is cleared as a whole.
HUGE_BYTES = 32 << 20
KEPT_BYTES = 256 << 20

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # options of mallopt in malloc.h


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """np.zeros, with huge pages where the system has them and the table is large."""
    array = np.zeros(shape, dtype)
    if array.nbytes >= HUGE_BYTES:
        _advise_huge(array)
    return array


def use_again() -> None:
    """For a process that counts: memory of arrays that come and go with each step is kept and used again.

    All threads share one heap, up to KEPT_BYTES of its end are kept, and numpy asks for huge pages for no array, as it
    would from 4 MiB on. Call it before other threads begin.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, HUGE_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(option, value)
    core = getattr(np, "_core", None)  # public is only an environment variable, read when numpy is imported
    set_huge = getattr(getattr(core, "multiarray", None), "_set_madvise_hugepage", None)
    if set_huge is not None:
        set_huge(False)


def give_back() -> None:
    """Let the system have what replaced arrays left behind and the allocator kept. Takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other allocators do so by themselves
    if trim is not None:
        trim(0)


def _advise_huge(array: npt.NDArray[Any]) -> None:
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:  # not Linux
        return
    start = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    size = array.ctypes.data + array.nbytes - start
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)  # refused: small ones do
