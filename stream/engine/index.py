"""Hash indexes of the state: by 128-bit id over rows that live in rings, and by a pair of integers over small tables.

Rows in rings are named by *links*: 32-bit sequence numbers from 1 on that wrap around and skip 0. The row of a link
stands at `link & (capacity - 1)`; it is alive while `(link - base) mod 2**32 < count`. So links survive the growth of a
ring, and expiry is a move of `base`.

An id slot is `tag << 32 | link`, the tag being the upper 32 bits of the id's first half; the second half is kept
outside, in `keys`, beside the tag once more, in `tags`: from both the slots can be made anew. Slots of dead rows are
skipped when looking, reused when inserting, and dropped when the table is rebuilt.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.engine.pages import enlarged, growing_zeros
from stream.engine.primitives import LOW32, U0, U32, U64, mix, prefetch

LINK_MASK = 0xFFFFFFFF
MAX_LOAD = 0.7
FRESH_LOAD = 0.56  # of a table that has just grown
YOUNG_LOAD = 0.35  # the same of one with few rows: it grows often, and costs little memory
YOUNG_ROWS = 1 << 20
AHEAD = 24
NEAR = 8  # slots that hold most ids, from where they are looked for first


@njit
def alive(link, base, count):
    """Whether the row of this link is still in its ring."""
    return link != 0 and ((link - base) & LINK_MASK) < count


@njit
def next_link(base, count):
    """The link of the row after the last one; 0 is skipped."""
    return (base + count) & LINK_MASK


@njit
def still(link, base, count):
    """The link, or 0 when its row has left: kept longer, it would name another row once the links wrapped around."""
    return link if alive(link, base, count) else np.int64(0)


@njit
def home(slots, first):
    """Where an id is looked for first."""
    return np.int64(((first >> U32) * U64(slots.shape[0])) >> U32)


@njit
def likely_place(slots, keys, first):
    """Where the row of a known id very likely stands, as long as its slots are at hand: for hints alone."""
    j = home(slots, first)
    tag = first >> U32
    for i in range(j, min(j + NEAR, slots.shape[0])):
        if slots[i] >> U32 == tag:
            return np.int64(slots[i] & LOW32) & (keys.shape[0] - 1)
    return np.int64(slots[j] & LOW32) & (keys.shape[0] - 1)


@njit
def find(slots, keys, base, count, first, second):
    """(link or 0, slot): the slot holds the id, or is where it belongs; -1 when the table is full."""
    n = slots.shape[0]
    mask = keys.shape[0] - 1
    tag = first >> U32
    j = home(slots, first)
    free = np.int64(-1)
    for _ in range(n):
        s = slots[j]
        if s == U0:
            return np.int64(0), (free if free >= 0 else j)
        link = np.int64(s & LOW32)
        if ((link - base) & LINK_MASK) >= count:
            if free < 0:
                free = j
        elif (s >> U32) == tag and keys[link & mask] == second:
            return link, j
        j += 1
        if j == n:
            j = np.int64(0)
    return np.int64(0), free


@njit
def tag_of(first):
    """What a slot keeps of the first half of an id."""
    return np.uint32(first >> U32)


@njit
def slot_of(first, link):
    """The slot that names this row under this id."""
    return ((first >> U32) << U32) | U64(link)


@njit(cache=True, nogil=True)
def rebuild(slots, out, base, count):
    """Re-home all live slots into `out`, an empty table of slots; how many there are."""
    size = out.shape[0]
    live = 0
    for i in range(slots.shape[0]):
        s = slots[i]
        if s == U0 or ((np.int64(s & LOW32) - base) & LINK_MASK) >= count:
            continue
        j = np.int64(((s >> U32) * U64(size)) >> U32)
        while out[j] != U0:
            j += 1
            if j == size:
                j = np.int64(0)
        out[j] = s
        live += 1
    return live


@njit(cache=True, nogil=True)
def slots_of_rows(tags, keys, only, base, count, slots):
    """Fill `slots`, an empty table, with a ring's live rows, of equal ids the newest; how many slots are in use.

    only: whether each row of the ring has an id, by place; empty when all have.
    """
    mask = keys.shape[0] - 1
    used = 0
    for k in range(count):
        ahead = (base + k + AHEAD) & LINK_MASK
        prefetch(slots, home(slots, U64(tags[ahead & mask]) << U32))
        link = (base + k) & LINK_MASK
        p = link & mask
        if link == 0 or (only.shape[0] > 0 and not only[p]):
            continue
        first = U64(tags[p]) << U32
        known, slot = find(slots, keys, base, count, first, keys[p])
        used += 1 if known == 0 else 0
        slots[slot] = slot_of(first, link)
    return used


def slots_for(rows: int) -> int:
    """Table size that has so many entries and room for a quarter more, or as many: never less for more rows.

    Any size will do: see `home`.
    """
    return max(1024, int(rows / FRESH_LOAD), int(min(rows, YOUNG_ROWS) / YOUNG_LOAD))


def power_of_two(rows: int) -> int:
    """The smallest power of two that is at least `rows`."""
    return 1 << max(4, (rows - 1).bit_length())


def grown_ring(array: npt.NDArray[Any], capacity: int, base: int, count: int) -> npt.NDArray[Any]:
    """The live rows of a ring in a larger one, copied in the few runs that are whole in both.

    Where the memory is the same, most stay, and some go from old rows to new ones.
    """
    here = enlarged(array, capacity)
    out = growing_zeros((capacity, *array.shape[1:]), array.dtype) if here is None else here
    done = 0
    while done < count:
        link = (base + done) & LINK_MASK
        start, target = link & (len(array) - 1), link & (capacity - 1)
        rows = min(count - done, len(array) - start, capacity - target)
        if here is None or start != target:
            out[target : target + rows] = array[start : start + rows]
        done += rows
    return out


def grown(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """The array with room for `rows` rows, new ones zero; the same memory where it has room for them."""
    out = enlarged(array, rows)
    if out is None:
        out = growing_zeros((rows, *array.shape[1:]), array.dtype)
        out[: len(array)] = array
    return out


# ------------------------------------------------------------------ pairs of integers


@njit
def pair_find(slots, keys, a, b):
    """Row of the pair, or -1 - slot where it belongs. `slots` int32, a power of two long and never full."""
    last = slots.shape[0] - 1
    j = np.int64(mix(mix(U64(a)) ^ U64(b)) & U64(last))
    for _ in range(last + 1):
        s = slots[j]
        if s == 0:
            return -1 - j
        if keys[s - 1, 0] == a and keys[s - 1, 1] == b:
            return np.int64(s - 1)
        j = (j + 1) & last
    return np.int64(-(1 << 62))


@njit
def pair_put(slots, keys, row, miss, a, b):
    """Give the pair the next row; `miss` is what pair_find answered."""
    keys[row, 0] = a
    keys[row, 1] = b
    slots[-1 - miss] = np.int32(row + 1)


@njit(cache=True, nogil=True)
def pair_slots(keys, count, size):
    """A fresh table of `size` slots (a power of two) over the first `count` keys."""
    slots = np.zeros(size, np.int32)
    for r in range(count):
        miss = pair_find(slots, keys, keys[r, 0], keys[r, 1])
        slots[-1 - miss] = np.int32(r + 1)
    return slots
