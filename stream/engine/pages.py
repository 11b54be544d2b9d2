"""Memory pages: new ones are dear, for the kernel clears them, and a virtual machine's host must find them first."""

import ctypes
import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

# From here on huge pages spare a quarter of the cost of looking up what is anywhere in a table. Smaller arrays come and
# go with each step, and a new huge page is cleared as a whole.
HUGE_BYTES = 32 << 20
KEPT_BYTES = 256 << 20
GROWING_BYTES = 4 << 20  # tables from here on have addresses reserved behind them,
RESERVE = 16  # so many times their size together

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # options of mallopt in malloc.h


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """np.zeros, with huge pages where the system has them and the table is large."""
    return _in_large_pages(np.zeros(shape, dtype))


def growing_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """np.zeros of a table that may become larger where it is: see `enlarged`."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    reserved = _reserved(RESERVE * nbytes) if nbytes >= GROWING_BYTES else None
    return zeros(shape, dtype) if reserved is None else _first_of(reserved, shape, dtype)


def enlarged(table: npt.NDArray[Any], rows: int) -> npt.NDArray[Any] | None:
    """The same memory with new rows of zeros behind the others, or None where nothing is reserved for them.

    Nothing is copied, and no page is touched before it is used. table: a whole one; it shows the same rows as before.
    """
    reserved: Any = table.base  # whatever owns the memory: ours is an array over a view of a mapping
    shape = rows, *table.shape[1:]
    if not isinstance(getattr(getattr(reserved, "base", None), "obj", None), mmap.mmap):
        return None
    if math.prod(shape) * table.itemsize > len(reserved):
        return None
    return _first_of(reserved, shape, table.dtype)


def _first_of(
    reserved: npt.NDArray[np.uint8], shape: tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return _in_large_pages(reserved[:nbytes].view(dtype).reshape(shape))


def _reserved(nbytes: int) -> npt.NDArray[np.uint8] | None:
    """Addresses whose memory comes when it is touched; None where the system reserves no more."""
    try:
        return np.frombuffer(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    except (OSError, ValueError, OverflowError):
        return None


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


def _in_large_pages(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The table, its new pages huge if it is large. Those that it has already stay."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or table.nbytes < HUGE_BYTES:  # None: not Linux
        return table
    start = -(-table.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    size = table.ctypes.data + table.nbytes - start
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)  # refused: small ones do
    return table
