"""Which blocks of the large tables may have changed since a snapshot last asked: a byte for each block.

Whatever changes a row of such a table marks its block: kernels do it where they change a row that is already there
(`mark_*`), the store does it for rows that were added and for arrays that were replaced. A change without a mark would
be missing in snapshots; `durability.image.Sizes.is_checked` finds it, and tests of engine and simulation run with it.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.engine.index import LINK_MASK
from stream.engine.layout import (
    ARENA,
    ASSIGNED,
    DECLARED,
    IDS,
    IDS_BASE,
    IMP_BASE,
    IMPRESSION,
    IMPS,
    INT_BASE,
    INTERACTION,
    INTS,
    USERS,
)
from stream.engine.primitives import prefetch, prefetch_line

BLOCK_BYTES = 512


def rows_of_block(row_bytes: int) -> int:
    """A power of two, so that the ends of a ring in memory are ends of blocks."""
    return 1 << max(0, (BLOCK_BYTES // max(1, row_bytes)).bit_length() - 1)


def _shift_of(row_bytes: int) -> int:
    return rows_of_block(row_bytes).bit_length() - 1


# Tables with marks, and under which name kernels get them: those whose rows change where they are.
MARKED = {
    "user_keys": "", "user_tags": "", "id_keys": "", "id_tags": "", "imp_keys": "", "imp_tags": "", "int_keys": "",
    "int_tags": "", "arena": "", "imps": "imp_marks", "ints": "int_marks", "assigned": "assigned_marks",
    "declared": "declared_marks",
}  # fmt: skip
# Where rows are added: (counters that together say where, how many rows stand before the first one, tables).
ADDED: tuple[tuple[tuple[int, ...], int, tuple[str, ...]], ...] = (
    ((IDS_BASE, IDS), 0, ("id_keys", "id_tags")),
    ((IMP_BASE, IMPS), 0, ("imps", "imp_keys", "imp_tags")),
    ((INT_BASE, INTS), 0, ("ints", "int_keys", "int_tags")),
    ((USERS,), 1, ("user_keys", "user_tags")),
    ((ARENA,), 0, ("arena",)),
)
_ASSIGNED, _DECLARED = _shift_of(ASSIGNED.itemsize), _shift_of(2 * DECLARED * 8)
_IMPRESSION, _INTERACTION = _shift_of(IMPRESSION.itemsize), _shift_of(INTERACTION.itemsize)


class Marks:
    """Those of one array, all set at first. Kernels write to `blocks`, uint8 by block."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        """array: never replaced while these marks are in use."""
        row_bytes = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
        self._block_rows = rows_of_block(row_bytes)
        self._rows = len(array)
        self.blocks = np.ones(-(-len(array) // self._block_rows), np.uint8)
        self._taker: object = None

    def set_all(self) -> None:
        """Everything may have changed."""
        self.blocks[:] = 1

    def add(self, place: int, rows: int) -> None:
        """Rows from this place on were written; behind the last one comes the first. Fewer than none: all may have."""
        if not 0 <= rows < self._rows:
            self.set_all()
            return
        while rows > 0:
            here = min(rows, self._rows - place)
            self.blocks[place // self._block_rows : (place + here - 1) // self._block_rows + 1] = 1
            place, rows = 0, rows - here

    def take(self, taker: object) -> npt.NDArray[np.bool_]:
        """By block, whether it may have changed since the same taker asked last; all when somebody else has since."""
        taken = self.blocks != 0 if taker is self._taker else np.ones(len(self.blocks), np.bool_)
        self.blocks[:] = 0
        self._taker = taker
        return taken


class AddedRows:
    """Marks what a step has added to the tables."""

    def __init__(self) -> None:
        """The first call of `mark` marks all."""
        self._ends: dict[tuple[int, ...], int] = {}

    def mark(
        self, m: npt.NDArray[np.int64], marks: dict[str, Marks], arrays: dict[str, npt.NDArray[Any]]
    ) -> None:
        """Mark the rows behind those that were there at the last call."""
        for counters, before, names in ADDED:
            end = before + int(m[list(counters)].sum())
            known = self._ends.get(counters, -1)
            self._ends[counters] = end
            rows = (end - known) & LINK_MASK if len(counters) > 1 else end - known
            for name in names:
                if known < 0:
                    marks[name].set_all()
                else:
                    marks[name].add(known % len(arrays[name]), rows)


@njit
def mark_assigned(t, row):
    """A row of `assigned`, or of the declared quantities beside it, changes."""
    t.assigned_marks[row >> _ASSIGNED] = 1
    if t.declared.shape[0] > row:
        t.declared_marks[row >> _DECLARED] = 1


@njit
def prefetch_assigned(t, row):
    """Hint that a row of `assigned` and its mark will be changed soon: all writing waits for a write to far away."""
    prefetch(t.assigned, row)
    prefetch(t.assigned_marks, row >> _ASSIGNED)


@njit
def prefetch_seen(t, row):
    """The same of a row of which only what impressions change will be."""
    prefetch_line(t.assigned, row)
    prefetch(t.assigned_marks, row >> _ASSIGNED)


@njit
def prefetch_impression(t, p):
    """Hint that a held impression and its mark will be changed soon."""
    prefetch(t.imps, p)
    prefetch(t.imp_marks, p >> _IMPRESSION)


@njit
def mark_impression_row(t, p):
    """A held impression changes, at place p."""
    t.imp_marks[p >> _IMPRESSION] = 1


@njit
def mark_interaction_row(t, p):
    """A held interaction changes, at place p."""
    t.int_marks[p >> _INTERACTION] = 1
