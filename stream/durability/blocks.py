"""Tables cut into blocks of a few rows: a hash of each, copies of some, and the way back.

Block b of a table has the rows b * block_rows up to the next block's; at the ends of a ring's live rows a block is
incomplete. The hash is not cryptographic: it tells whether a block is still what it was.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.engine.primitives import U64, load64

_MULTIPLIER = U64(0x9E3779B97F4A7C15)
_SHIFT = U64(29)
_ONE = U64(1)


def as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A contiguous array's memory."""
    return array.reshape(-1).view(np.uint8)


@njit
def hash_of(buf, at, end):
    """64 bits over buf[at:end], never 0; one changed word always changes them. Four lanes, as fast as memory."""
    a, b, c, d = U64(end - at), U64(2), U64(3), U64(4)
    while at + 32 <= end:
        a = (a ^ load64(buf, at)) * _MULTIPLIER
        b = (b ^ load64(buf, at + 8)) * _MULTIPLIER
        c = (c ^ load64(buf, at + 16)) * _MULTIPLIER
        d = (d ^ load64(buf, at + 24)) * _MULTIPLIER
        a ^= a >> _SHIFT
        b ^= b >> _SHIFT
        c ^= c >> _SHIFT
        d ^= d >> _SHIFT
        at += 32
    while at < end:
        word = U64(0)
        for k in range(min(end - at, 8)):
            word |= U64(buf[at + k]) << U64(8 * k)
        a = (a ^ word) * _MULTIPLIER
        a ^= a >> _SHIFT
        at += 8
    a = ((((a * _MULTIPLIER) ^ b) * _MULTIPLIER) ^ c) * _MULTIPLIER ^ d
    a = (a ^ (a >> _SHIFT)) * _MULTIPLIER
    return a if a != U64(0) else _ONE


@njit(cache=True, nogil=True)
def hash_blocks(buf, row_bytes, first, block_rows, out):
    """Hashes of the blocks that `buf`, rows from number `first` on, touches."""
    at = np.int64(0)
    row = np.int64(first)
    for b in range(out.shape[0]):
        following = (row // block_rows + 1) * block_rows
        end = min(np.int64(buf.shape[0]), at + (following - row) * row_bytes)
        out[b] = hash_of(buf, at, end)
        row = following
        at = end


@njit
def _bounds(buf, row_bytes, first, block_rows, number):
    """(where a block begins, and from where to where it is in `buf`), in bytes of `buf`."""
    start = (number * block_rows - first) * row_bytes
    lo = max(np.int64(0), start)
    return start, lo, min(np.int64(buf.shape[0]), start + row_bytes * block_rows)


@njit(cache=True, nogil=True)
def hash_some_blocks(buf, row_bytes, first, block_rows, numbers, out):
    """Hashes of the blocks of these numbers, all of which `buf` touches; the rest as for `hash_blocks`."""
    for i in range(numbers.shape[0]):
        _, lo, hi = _bounds(buf, row_bytes, first, block_rows, numbers[i])
        out[i] = hash_of(buf, lo, hi)


@njit(cache=True, nogil=True)
def first_stale(stale, most):
    """Places of the first `most` blocks that must be compared."""
    out = np.empty(min(most, stale.shape[0]), np.int64)
    n = 0
    for place in range(stale.shape[0]):
        if n == out.shape[0]:
            break
        if stale[place]:
            out[n] = place
            n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def first_unsaved(stale, owners, unsaved, most):
    """Places of the first `most` blocks whose owner is `unsaved` and that need not be compared."""
    out = np.empty(min(most, stale.shape[0]), np.int64)
    n = 0
    for place in range(stale.shape[0]):
        if n == out.shape[0]:
            break
        if owners[place] == unsaved and not stale[place]:
            out[n] = place
            n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def copy_blocks(buf, row_bytes, first, block_rows, numbers, out):
    """Copy the blocks of these numbers out of `buf`; rows it has not stay as they are in `out` (blocks, bytes)."""
    for i in range(numbers.shape[0]):
        start, lo, hi = _bounds(buf, row_bytes, first, block_rows, numbers[i])
        if lo < hi:
            out[i, lo - start : hi - start] = buf[lo:hi]


@njit(cache=True, nogil=True)
def paste_blocks(buf, row_bytes, first, block_rows, numbers, blocks):
    """Copy blocks to where they belong in `buf`; what lies outside is left out."""
    for i in range(numbers.shape[0]):
        start, lo, hi = _bounds(buf, row_bytes, first, block_rows, numbers[i])
        if lo < hi:
            buf[lo:hi] = blocks[i, lo - start : hi - start]
