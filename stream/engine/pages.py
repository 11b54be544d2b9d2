"""Memory that replaced arrays leave behind goes back to the system: the allocator keeps what was not very large."""

import ctypes


def give_back() -> None:
    """Takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other allocators do so by themselves
    if trim is not None:
        trim(0)
