"""The C library's heap, of which memory that was used is used again: new pages are dear (see engine.pages)."""

import ctypes
import os

KEPT_BYTES = 256 << 20  # of the end of the heap
MAPPED_BYTES = 32 << 20  # larger arrays are mapped by themselves, which is the most that glibc allows here

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # options of mallopt in malloc.h


def use_again() -> None:
    """Let all threads share one heap and keep its end; nothing where the C library is not glibc.

    For a process that counts, before its first import that starts a thread, as numpy's does: glibc gives each thread a
    heap of its own until it is told otherwise, threads that come later take over those of others, and such a heap
    returns what is freed to the system at once. Arrow's own heap does so too, soon, and begins with huge pages.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # read when Arrow is imported
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_ARENA_MAX, 1),
            (_MMAP_THRESHOLD, MAPPED_BYTES),
            (_TRIM_THRESHOLD, KEPT_BYTES),
        ):
            mallopt(option, value)


def give_back() -> None:
    """Let the system have what replaced arrays left behind and the allocator kept. Takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other allocators do so by themselves
    if trim is not None:
        trim(0)
