"""Memory pages: new ones are dear, for the kernel clears them, and a virtual machine's host must find them first."""

import ctypes
import math
import mmap
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# From here on huge pages spare a quarter of the cost of looking up what is anywhere in a table. Smaller arrays come and
# go with each step, and a new huge page is cleared as a whole.
HUGE_BYTES = 32 << 20
GROWING_BYTES = 4 << 20  # tables from here on have addresses reserved behind them,
RESERVE = 16  # so many times their size together

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # older Pythons lack the name
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """np.zeros, with huge pages where the system has them and the table is large."""
    return _in_large_pages(np.zeros(shape, dtype))


def growing_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """np.zeros of a table that may become larger where it is: see `enlarged`."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    reserve = _reserved(nbytes) if nbytes >= GROWING_BYTES else None
    return zeros(shape, dtype) if reserve is None else _first_of(reserve, shape, dtype)


def enlarged(table: npt.NDArray[Any], rows: int) -> npt.NDArray[Any] | None:
    """The same memory with new rows of zeros behind the others, or None where nothing is reserved for them.

    Nothing is copied, and no page is touched before it is used. table: the newest over its memory; it shows the same
    rows as before. A view of it has nothing reserved: what is behind may be rows.
    """
    reserve: Any = table.base  # of a view of a table, or of memory of others: something else
    shape = rows, *table.shape[1:]
    if not isinstance(reserve, _Reserve) or table.nbytes != reserve.used:
        return None
    if not reserve.used <= math.prod(shape) * table.itemsize <= len(reserve):
        return None
    return _first_of(reserve, shape, table.dtype)


class _Reserve(mmap.mmap):
    """Addresses for a table and what it may become; their memory comes when it is touched."""

    used: int  # bytes of the table; all behind them are zero


def _first_of(reserve: _Reserve, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    table: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer=reserve)  # its base is the reserve
    reserve.used = table.nbytes
    return _in_large_pages(table)


def _reserved(nbytes: int) -> _Reserve | None:
    """For a table of so many bytes, from the beginning of a page on; nothing behind it where addresses cost something.

    None where the system has no more of them.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        if _are_addresses_free():
            return _Reserve(-1, RESERVE * nbytes, flags | _NORESERVE)
        return _Reserve(-1, nbytes, flags)
    except (OSError, ValueError, OverflowError):
        return None


def _are_addresses_free() -> bool:
    """Whether no memory is counted for addresses that are only reserved, and nobody limits them."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return False  # _NORESERVE may be another number
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    if any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits):
        return False
    return _OVERCOMMIT.read_text().strip() != "2"  # 2: each reserved byte counts


def ask_for_no_huge_pages() -> None:
    """Let numpy have them for no array, as it would from 4 MiB on: those come and go with each step."""
    core = getattr(np, "_core", None)  # public is only an environment variable, read when numpy is imported
    set_huge = getattr(getattr(core, "multiarray", None), "_set_madvise_hugepage", None)
    if set_huge is not None:
        set_huge(False)


def _in_large_pages(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The table, its new pages huge if it is large. Those that it has already stay."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or table.nbytes < HUGE_BYTES:  # None: not Linux
        return table
    start = -(-table.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    size = table.ctypes.data + table.nbytes - start
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)  # refused: small ones do
    return table
