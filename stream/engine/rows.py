"""What an export is made of: rows under numbers that neither growth nor expiry changes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.engine.index import LINK_MASK, power_of_two
from stream.engine.marks import Marks
from stream.engine.pages import growing_zeros

SMALL = 1 << 10  # rows of the smallest table
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one table in order: (number of the first row, rows) by part, views where the table has them.

    A table that only grows has one part and counts from 0; the rows of a ring are numbered by their links. `marks` say
    what changed; None: anything may have. `room`: the whole table, of which the parts are views and which has room for
    more; whoever takes it has it alone.
    """

    parts: tuple[tuple[int, Array], ...]
    marks: Marks | None = None
    room: Array | None = None

    @property
    def joined(self) -> Array:
        """All rows in one array."""
        arrays = [array for _, array in self.parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def flat(array: Array, marks: Marks | None = None) -> Rows:
    """The rows of a table that only grows."""
    return Rows(((0, array),), marks)


def of_ring(array: Array, base: int, count: int, marks: Marks | None = None) -> Rows:
    """The live rows of a ring, in the runs that are whole in it and before links wrap around."""
    parts: list[tuple[int, Array]] = []
    done = 0
    while done < count or not parts:
        link = (base + done) & LINK_MASK
        start = link & (len(array) - 1)
        rows = min(count - done, len(array) - start, LINK_MASK + 1 - link)
        parts.append((link, array[start : start + rows]))
        done += rows
    return Rows(tuple(parts), marks)


def with_room(parts: tuple[tuple[int, int], ...], dtype: np.dtype[Any], tail: tuple[int, ...]) -> Rows:
    """Zero rows in a table or ring of their own. parts: (number of the first row, count)."""
    room = growing_zeros((capacity_for(sum(count for _, count in parts)), *tail), dtype)
    views: list[tuple[int, Array]] = []
    for link, count in parts:
        done = 0
        while done < count or not done:
            start = (link + done) & (len(room) - 1)
            fit = min(count - done, len(room) - start)
            views.append((link + done, room[start : start + fit]))
            done += max(fit, 1)  # an empty part is one too
    return Rows(tuple(views), room=room)


def ring_of(rows: Rows) -> Array:
    """A ring with these rows where their links say."""
    if rows.room is not None:
        return rows.room
    first = rows.parts[0][1]
    count = sum(len(array) for _, array in rows.parts)
    ring = growing_zeros((capacity_for(count), *first.shape[1:]), first.dtype)
    for link, array in rows.parts:
        done = 0
        while done < len(array):
            start = (link + done) & (len(ring) - 1)
            fit = min(len(array) - done, len(ring) - start)
            ring[start : start + fit] = array[done : done + fit]
            done += fit
    return ring


def table_of(rows: Rows) -> Array:
    """A table with these rows and room for more."""
    if rows.room is not None:
        return rows.room
    array = rows.joined
    table = growing_zeros((capacity_for(len(array)), *array.shape[1:]), array.dtype)
    table[: len(array)] = array
    return table


def capacity_for(rows: int) -> int:
    """Rows of a table that holds so many."""
    return max(SMALL, power_of_two(rows + 2))
